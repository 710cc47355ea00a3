"""Compute once, in float64, what depends on parameters only.

Weights that a forward makes of others (standardised, masked, normalized or put together), decay
rates -exp(A_log), tables that are indexed by position.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from deblur_export.export.graph_folds.match import aten, is_call
from deblur_export.export.graph_folds.program import Program, run_call
from deblur_export.export.reparam.infra import Changes

# Above this many values, a result that is larger than what it is made of stays in the graph.
LARGE = 1 << 20
MAKERS = {
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.eye.default,
}


def compute_constants(program: Program) -> Changes:
    """Replace every largest subgraph of constants by its value; the changes are named after the
    first constant of each."""
    changes = Changes()
    constant: dict[fx.Node, tuple[fx.Node, ...]] = {}
    for node in program.graph.nodes:
        if program.is_constant(node):
            constant[node] = (node,)
        elif _is_pure(program, node) and all(n in constant for n in node.all_input_nodes):
            every = (leaf for n in node.all_input_nodes for leaf in constant[n])
            constant[node] = tuple(dict.fromkeys(every))
    for node in reversed(list(program.graph.nodes)):
        made_of = constant.get(node, ())
        if not made_of or node.op != "call_function" or not node.users:
            continue
        if all(user in constant for user in node.users) or not isinstance(
            node.meta.get("val"), Tensor
        ):
            continue
        name = program.name(made_of[0])
        size = sum(program.value(n).numel() for n in made_of)
        if node.meta["val"].numel() > max(LARGE, size):
            changes.declined.append((name, "the result is larger than the parameters"))
            continue
        value = program.computed(lambda *values, n=node, m=made_of: _value(n, m, values), *made_of)
        program.replace(node, value)
        changes.changed.append(name)
    changes.changed.reverse()
    return changes


def _is_pure(program: Program, node: fx.Node) -> bool:
    """Whether a call gives the same for the same inputs, and writes into none."""
    if node.op != "call_function" or program.is_written(node):
        return False
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
        return False
    return torch.Tag.nondeterministic_seeded not in node.target.tags and (
        bool(node.all_input_nodes) or is_call(node, *MAKERS)
    )


def _value(node: fx.Node, made_of: tuple[fx.Node, ...], values: tuple[Tensor, ...]) -> Tensor:
    known: dict[fx.Node, Any] = dict(zip(made_of, values, strict=True))

    def value_of(n: fx.Node) -> Any:
        if n not in known:
            known[n] = run_call(n, value_of)
        return known[n]

    result = value_of(node)
    assert isinstance(result, Tensor)
    return result.clone()
