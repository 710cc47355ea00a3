"""Decompose LayerNormalization over the channels of [N, C, H, W] without transposes.

ONNX normalizes trailing axes only, so the exporter writes Transpose, LayerNormalization and
Transpose. OpenVINO stores features in NHWC and reduces over the channels at no extra cost, so that
the two transposes take most of the time there. On ONNX Runtime the opposite is the case.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def decompose_layer_norm(model: ir.Model) -> int:
    """Replace such nodes by mean, difference, variance and quotient, in place.

    Scale and shift follow unless they are 1 and 0. Returns the number of replaced nodes.
    """
    found = [node for node in model.graph if _is_over_channels(node)]
    for node in found:
        _replace(model.graph, node)
    return len(found)


def _is_over_channels(node: ir.Node) -> bool:
    if node.op_type != "LayerNormalization" or node.domain or len(node.outputs) != 1:
        return False
    before, users = node.inputs[0], [use.node for use in node.outputs[0].uses()]
    return (
        before is not None
        and _is_transpose(before.producer(), TO_NHWC)
        and len(users) == 1
        and _is_transpose(users[0], TO_NCHW)
        and not users[0].outputs[0].is_graph_output()
        and node.attributes.get_int("axis", -1) in (-1, 3)
        and all(p is None or p.const_value is not None for p in node.inputs[1:])
    )


def _is_transpose(node: ir.Node | None, order: list[int]) -> bool:
    return (
        node is not None
        and node.op_type == "Transpose"
        and list(node.attributes["perm"].as_ints()) == order
    )


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    assert node.inputs[0] is not None
    before, after = node.inputs[0].producer(), next(iter(node.outputs[0].uses())).node
    assert before is not None
    x, out = before.inputs[0], after.outputs[0]
    assert x is not None
    name = str(node.name)
    tape = Tape()

    def op(label: str, kind: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        value = tape.op(kind, inputs, attributes, name=f"{name}/{label}")
        value.name = f"{name}/{label}"
        value.dtype = ir.DataType.FLOAT
        return value

    axis = _constant(graph, "norm/axis", np.array([1], np.int64))
    two = _constant(graph, "norm/two", np.array(2, np.float32))
    eps = np.array(node.attributes.get_float("epsilon", 1e-5), np.float32)
    epsilon = _constant(graph, f"norm/epsilon_{eps:.0e}", eps)
    mean = op("mean", "ReduceMean", x, axis, keepdims=1)
    centred = op("centred", "Sub", x, mean)
    square = op("square", "Pow", centred, two)
    variance = op("variance", "ReduceMean", square, axis, keepdims=1)
    shifted = op("shifted", "Add", variance, epsilon)
    y = op("normalized", "Div", centred, op("deviation", "Sqrt", shifted))
    factors = (("scale", "Mul", 1), ("shift", "Add", 0))
    for parameter, (label, kind, neutral) in zip(node.inputs[1:], factors, strict=False):
        if parameter is None or parameter.const_value is None:
            continue
        array = parameter.const_value.numpy()
        if (array != neutral).any():
            y = op(label, kind, y, _constant(graph, f"{name}/{label}s", array.reshape(-1, 1, 1)))

    y.shape, y.type = out.shape, out.type
    graph.insert_before(node, tape.nodes)
    ir.convenience.replace_all_uses_with(out, y)
    graph.remove([after, node], safe=True)
    if not before.outputs[0].uses():
        graph.remove(before, safe=True)


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """The initializer of this name; it is created if it does not exist."""
    if name not in graph.initializers:
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        graph.register_initializer(value)
    return graph.initializers[name]
