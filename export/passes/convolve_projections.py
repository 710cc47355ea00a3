"""Convert linear layers on the channels of [N, C, L], exported as W @ x, to 1x1 convolutions.

OpenVINO computes a matrix product with a constant left factor in float32 even if bf16 is requested,
and copies the outputs of a Split after it. It computes a convolution in bf16, and here each output
of the Split gets its own convolution.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir


def convolve_projections(model: ir.Model) -> int:
    """Rewrite MatMul(W [O, C], x [N, C, L]), an optional Add of a bias [O, 1] and an optional Split
    after it, in place; returns the number of products."""
    graph = model.graph
    count = 0
    for node in list(graph):
        weight = _weight(node)
        if weight is None:
            continue
        removed, bias, output = [node], None, node.outputs[0]
        if (added := _added(output, len(weight))) is not None:
            add, bias = added
            removed.append(add)
            output = add.outputs[0]
        parts = {output: slice(None)}
        if (split := _split(output)) is not None:
            removed.append(split)
            ends = np.cumsum([0, *_sizes(split, len(weight))])
            slices = (slice(a, b) for a, b in pairwise(ends))
            parts = dict(zip(split.outputs, slices, strict=True))
        if any(out.is_graph_output() for out in parts):
            continue
        count += 1
        for out, part in parts.items():
            new = _convolution(graph, node, weight[part], None if bias is None else bias[part])
            new.outputs[0].name = f"{out.name}/projected"
            new.outputs[0].shape, new.outputs[0].type = out.shape, out.type
            graph.insert_before(removed[-1], new)
            ir.convenience.replace_all_uses_with(out, new.outputs[0])
        graph.remove(list(reversed(removed)), safe=True)
    return count


def _array(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _weight(node: ir.Node) -> np.ndarray | None:
    """W if the node is such a product, or else None."""
    if node.op_type != "MatMul" or node.domain:
        return None
    left, right = _array(node.inputs[0]), node.inputs[1]
    rank = None if right is None or right.shape is None else len(right.shape)
    return left if left is not None and left.ndim == 2 and rank == 3 else None


def _only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    users = [use.node for use in value.uses()]
    if value.is_graph_output() or len(users) != 1 or users[0].op_type != op_type:
        return None
    return None if users[0].domain else users[0]


def _added(value: ir.Value, channels: int) -> tuple[ir.Node, np.ndarray] | None:
    """The only user and its constant [channels], if it adds a per-channel constant."""
    node = _only_user(value, "Add")
    if node is None:
        return None
    bias = next((a for a in map(_array, node.inputs) if a is not None), None)
    if bias is None or bias.shape != (channels, 1):
        return None
    return node, bias[:, 0]


def _split(value: ir.Value) -> ir.Node | None:
    node = _only_user(value, "Split")
    return node if node is not None and node.attributes.get_int("axis", 0) == 1 else None


def _sizes(split: ir.Node, channels: int) -> list[int]:
    sizes = _array(split.inputs[1]) if len(split.inputs) > 1 else None
    count = len(split.outputs)
    return [channels // count] * count if sizes is None else [int(size) for size in sizes]


def _convolution(
    graph: ir.Graph, product: ir.Node, weight: np.ndarray, bias: np.ndarray | None
) -> ir.Node:
    number = sum(name.startswith(f"{product.name}/weight") for name in graph.initializers)
    inputs = [product.inputs[1]]
    arrays = {"weight": weight[:, :, None]} | ({} if bias is None else {"bias": bias})
    for label, array in arrays.items():
        name = f"{product.name}/{label}{number}"
        value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        graph.register_initializer(value)
        inputs.append(value)
    kernel = [ir.AttrInt64s("kernel_shape", [1])]
    return ir.Node("", "Conv", inputs, kernel, name=f"{product.name}/conv{number}")
