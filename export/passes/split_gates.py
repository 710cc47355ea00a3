"""Compute SimpleGate without a Split: each half of its input gets its own convolution.

OpenVINO copies both outputs of a Split. The halves of a convolution whose output is only split are
independent, so two convolutions with half of the filters each compute them separately. With a
depth-wise convolution in between, both convolutions are split.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def split_gates(model: ir.Model) -> int:
    """Rewrite Conv -> Split and Conv -> depth-wise Conv -> Split, in place; returns the number of
    removed Splits."""
    graph = model.graph
    count = 0
    for node in list(graph):
        chain = _chain(node.inputs[0]) if _is_halving(node) else []
        if not chain:
            continue
        count += 1
        for half, out in enumerate(node.outputs):
            y = _value(chain[0].inputs[0])
            for conv in chain:
                y = _half(graph, node, conv, y, half)
            y.shape, y.type = out.shape, out.type
            ir.convenience.replace_all_uses_with(out, y)
        graph.remove(node, safe=True)
        for conv in reversed(chain):
            graph.remove(conv, safe=True)
    return count


def _is_halving(node: ir.Node) -> bool:
    """Whether the channels are split into two equal parts."""
    if node.op_type != "Split" or node.domain or len(node.outputs) != 2:
        return False
    if node.attributes.get_int("axis", 0) != 1 or any(v.is_graph_output() for v in node.outputs):
        return False
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return True
    sizes = ir.convenience.get_const_tensor(node.inputs[1])
    return sizes is not None and len(set(sizes.numpy().tolist())) == 1


def _chain(value: ir.Value | None) -> list[ir.Node]:
    """The convolutions that compute `value` and can be split in two, first to last; empty if they
    cannot."""
    last = _convolution(value)
    if last is None:
        return []
    if last.attributes.get_int("group", 1) == 1:
        return [last]
    before = _convolution(last.inputs[0])
    if before is None or before.attributes.get_int("group", 1) != 1:
        return []
    weight = _value(last.inputs[1]).const_value
    return [before, last] if weight is not None and weight.shape[1] == 1 else []


def _convolution(value: ir.Value | None) -> ir.Node | None:
    """The Conv that computes `value`, if its parameters are constant and its output has one use."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != "Conv" or len(value.uses()) != 1:
        return None
    parameters = (p for p in node.inputs[1:] if p is not None)
    return node if all(p.const_value is not None for p in parameters) else None


def _half(graph: ir.Graph, split: ir.Node, conv: ir.Node, x: ir.Value, half: int) -> ir.Value:
    """Insert a convolution of `x` with half of the filters before `split`; returns its output."""
    inputs = [x]
    for parameter in map(_value, conv.inputs[1:]):
        assert parameter.const_value is not None
        part = np.ascontiguousarray(np.split(parameter.const_value.numpy(), 2)[half])
        name = f"{parameter.name}/half{half}"
        value = ir.Value(name=name, const_value=ir.tensor(part, name=name))
        value.shape, value.type = ir.Shape(part.shape), parameter.type
        graph.register_initializer(value)
        inputs.append(value)
    attributes = dict(conv.attributes)
    group = conv.attributes.get_int("group", 1)
    if group > 1:
        attributes["group"] = ir.AttrInt64("group", group // 2)
    node = ir.Node("", "Conv", inputs, list(attributes.values()), name=f"{conv.name}/half{half}")
    output = node.outputs[0]
    output.name, output.type = f"{conv.outputs[0].name}/half{half}", conv.outputs[0].type
    graph.insert_before(split, node)
    return output


def _value(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
