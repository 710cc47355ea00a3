"""Spare an exported program its second trace.

The torch exporter traces every program again to replace operators that ONNX has no translation of,
and operators that write into a tensor; that is a third of an export. Most programs have few such
operators or none, so these are replaced by themselves here, node by node. A program with anything
else is traced again as before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

# Torch has no translation of these, and no table has them.
EXPANDED = (torch.ops.aten.to.dtype, torch.ops.aten.expand_as.default)
# What else consists of others is left to the second trace, which simplifies the sizes that come
# with it; except for this, which has none.
WHOLE = (torch.ops.aten.chunk.default,)
COMPOSITE = "CompositeImplicitAutograd"
Table = Mapping[Any, Callable[..., Any]]


@contextmanager
def replacing_by_node(program: ExportedProgram) -> Iterator[None]:
    """A context in which a program replaces its operators by `replaced`, where that can be done,
    when the torch exporter asks it to; in place."""
    trace_again = program.run_decompositions

    def run(table: Any = None) -> ExportedProgram:
        return program if table is not None and replaced(program, table) else trace_again(table)

    program.run_decompositions = run
    try:
        yield
    finally:
        del program.run_decompositions


def replaced(program: ExportedProgram, table: Table) -> bool:
    """Replace the operators of a program that are keys of a table, and those that write into a
    tensor, in place.

    Args:
        program: as `torch.export.export` gives it.
        table: functions that compute the same by other operators.

    Returns:
        Whether all were replaced. The program computes the same in either case.
    """
    graph = program.graph_module.graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    if any(_needs_trace(node.target) for node in nodes):
        return False
    written = [node for node in nodes if _writes(node)]
    if not all(map(_writes_alone, written)):
        return False
    for node in written:
        _return_result(graph, node)
    try:
        for node in graph.nodes:
            if node.op == "call_function" and (node.target in table or node.target in EXPANDED):
                _expand(graph, node, table)
    except Exception:  # the second trace may still do it, and its message is the one to show
        return False
    finally:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
    return True


@cache
def _needs_trace(target: Any) -> bool:
    """Whether an operator has a graph of its own, or always becomes others when it is traced."""
    if not isinstance(target, OpOverload):
        return isinstance(target, HigherOrderOperator)
    return (
        target not in (*EXPANDED, *WHOLE)
        and torch._C._dispatch_has_kernel_for_dispatch_key(_name(target), COMPOSITE)
        and target not in torch.export.default_decompositions()
    )


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _writes_alone(node: fx.Node) -> bool:
    """Whether an operator writes into its first argument only, which nothing else is a view of, and
    there is another that returns the result."""
    target, written = node.target, node.args[0] if node.args else None
    assert isinstance(target, OpOverload)
    if not isinstance(written, fx.Node) or _functional(target) is None:
        return False
    made_here = written.op == "call_function" and not _aliases(written)
    return made_here and not any(map(_aliases, written.users.keys() - {node}))


def _name(target: OpOverload) -> str:
    return str(target.name())  # type: ignore[no-untyped-call]


def _aliases(node: fx.Node) -> bool:
    """Whether the output of a node may share memory with one of its inputs."""
    if not isinstance(node.target, OpOverload):
        return node.op == "call_function"  # getitem and the like
    schema = node.target._schema
    views = any(value.alias_info is not None for value in schema.returns)
    # These return their input or a copy of it, as shapes and types ask.
    return (views and not schema.is_mutable) or _name(node.target).split(".")[0] in MAY_ALIAS


MAY_ALIAS = {f"aten::{name}" for name in ("contiguous", "reshape", "to", "flatten", "expand_as")}


def _functional(target: OpOverload) -> OpOverload | None:
    """relu of relu_, of the same arguments."""
    packet, overload = target._schema.name.removeprefix("aten::"), target._overloadname
    if not packet.endswith("_") or packet == target._schema.name:
        return None
    found = getattr(getattr(torch.ops.aten, packet[:-1], None), overload, None)
    if not isinstance(found, OpOverload) or found._schema.is_mutable:
        return None
    same = [a.name for a in found._schema.arguments] == [a.name for a in target._schema.arguments]
    return found if same else None


def _return_result(graph: fx.Graph, node: fx.Node) -> None:
    """Replace an operator that writes by the one that returns, which later readers then read."""
    target, written = node.target, node.args[0]
    assert isinstance(target, OpOverload) and isinstance(written, fx.Node)
    order = {each: number for number, each in enumerate(graph.nodes)}
    node.target = _functional(target)  # type: ignore[assignment]
    for user in list(written.users):
        if order[user] > order[node]:
            user.replace_input_with(written, node)


def _expand(graph: fx.Graph, node: fx.Node, table: Table) -> None:
    """Replace a node by the operators that its function in the table calls."""
    inputs = list(dict.fromkeys(n for n in node.all_input_nodes))
    target = node.target
    assert callable(target)

    def call(*tensors: Tensor) -> Any:
        given = dict(zip(inputs, tensors, strict=True))
        args: Any = map_arg(node.args, given.__getitem__)
        kwargs: Any = map_arg(node.kwargs, given.__getitem__)
        return target(*args, **kwargs)

    # fake tensors in, so that nothing is computed
    traced = make_fx(call, decomposition_table=dict(table))(*(n.meta["val"] for n in inputs))
    made: dict[fx.Node, Any] = {}
    placeholders = iter(inputs)
    with graph.inserting_before(node):
        for each in traced.graph.nodes:
            if each.op == "placeholder":
                made[each] = next(placeholders)
            elif each.target is torch.ops.aten.sym_numel.default:
                made[each] = _product_of_sizes(graph, made[each.args[0]])
            elif each.op == "call_function":
                made[each] = graph.node_copy(each, made.__getitem__)
                context = ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn")
                made[each].meta.update({k: node.meta[k] for k in context if k in node.meta})
            elif each.op == "output":
                result = map_arg(each.args[0], made.__getitem__)
            else:
                raise NotImplementedError(f"{each.op} in a decomposition")
    if isinstance(result, fx.Node):
        _replace(graph, node, result, inputs)
        return
    for user in list(node.users):  # each takes one of several outputs
        _replace(graph, user, result[user.args[1]], inputs)
    graph.erase_node(node)


def _product_of_sizes(graph: fx.Graph, tensor: fx.Node) -> Any:
    """The number of entries, which ONNX has no translation of."""
    product: Any = 1
    value: Any = 1
    for axis, size in enumerate(tensor.meta["val"].shape):
        factor: Any = size
        if not isinstance(size, int):
            factor = graph.call_function(torch.ops.aten.sym_size.int, (tensor, axis))
            factor.meta["val"] = size
        value = value * size
        if isinstance(product, int) and isinstance(factor, int):
            product = product * factor
        elif isinstance(product, int) and product == 1:
            product = factor
        else:
            product = graph.call_function(operator.mul, (product, factor))
            product.meta["val"] = value
    return product


def _replace(graph: fx.Graph, node: fx.Node, result: fx.Node, inputs: list[fx.Node]) -> None:
    name = node.name
    node.replace_all_uses_with(result)
    graph.erase_node(node)
    if result not in inputs:
        result.name = name  # the signature of the program names it if it is the output
