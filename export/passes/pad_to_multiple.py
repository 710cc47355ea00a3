"""Padding to the network's size multiple, inside the graph: any H x W works in any runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape


def pad_to_multiple(model: ir.Model, multiple: int, height: int | str, width: int | str) -> None:
    """Put zero padding (right, bottom) before the graph and the crop behind it, in place.

    The graph's input and output keep their names; its former ends become `padded_<name>`.

    Args:
        model: one image input and one image output, sizes multiples of `multiple`.
        multiple: the network's size multiple.
        height, width: of the new input; a number, or a name for a dynamic dimension.
    """
    graph = model.graph
    inner_input, inner_output = graph.inputs[0], graph.outputs[0]
    batch = inner_input.shape[0] if inner_input.shape else None
    outer_input = _image(str(inner_input.name), batch, height, width)
    outer_output = _image(str(inner_output.name), batch, height, width)
    inner_input.name = f"padded_{inner_input.name}"
    inner_output.name = f"padded_{inner_output.name}"

    before, after = Tape(), Tape()
    size = _node(before, "input_size/Shape", "Shape", [outer_input], start=2, end=4)
    rounded = _round_up(before, size, multiple)
    missing = _node(before, "padding/missing", "Sub", [rounded, size])
    pads = _node(
        before, "padding/pads", "Concat", [_ints(before, "padding/none", [0] * 6), missing], axis=0
    )
    before.op(
        "Pad", [outer_input, pads], {"mode": "constant"}, name="padding/Pad", output=inner_input
    )
    zero, axes = _ints(after, "crop/start", [0, 0]), _ints(after, "crop/axes", [2, 3])
    after.op("Slice", [inner_output, zero, size, axes], name="crop/Slice", output=outer_output)

    graph.inputs[0] = outer_input
    graph.outputs[0] = outer_output
    graph.insert_before(graph[0], before.nodes)
    graph.extend(after.nodes)


def _round_up(tape: Tape, size: ir.Value, multiple: int) -> ir.Value:
    up = _node(tape, "padding/up", "Add", [size, _ints(tape, "padding/ceil", [multiple - 1])])
    factor = _ints(tape, "padding/multiple", [multiple])
    count = _node(tape, "padding/count", "Div", [up, factor])
    return _node(tape, "padding/size", "Mul", [count, factor])


def _node(tape: Tape, name: str, op: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
    value = tape.op(op, inputs, attributes, name=name)
    value.name = name
    return value


def _ints(tape: Tape, name: str, values: list[int]) -> ir.Value:
    return _node(tape, name, "Constant", [], value=ir.tensor(np.asarray(values, np.int64)))


def _image(
    name: str, batch: ir.SymbolicDim | int | None, height: int | str, width: int | str
) -> ir.Value:
    return ir.Value(
        name=name,
        shape=ir.Shape([batch, 3, height, width]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
