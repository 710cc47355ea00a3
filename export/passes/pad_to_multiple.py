"""Add padding to the network's size multiple to the graph, so that it accepts any H x W."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from deblur_export.models.image_spec import Padding


def pad_to_multiple(
    model: ir.Model,
    multiple: int,
    height: int | str,
    width: int | str,
    padding: Padding = "zeros",
) -> None:
    """Insert padding (right, bottom) before the graph and a crop after it, in place.

    The new input and output have the names of the old ones, which become `padded_<name>`.

    Args:
        model: has one image input and one image output, whose sizes are multiples of `multiple`.
        multiple: the network's size multiple in pixels.
        height, width: of the new input; a number, or a name for a dynamic dimension.
        padding: as in `models.blocks.padding.pad_to_multiple`.
    """
    graph = model.graph
    inner_input, inner_output = graph.inputs[0], graph.outputs[0]
    batch = inner_input.shape[0] if inner_input.shape else None
    outer_input = _image(str(inner_input.name), batch, height, width)
    outer_output = _image(str(inner_output.name), batch, height, width)
    inner_input.name = f"padded_{inner_input.name}"
    inner_output.name = f"padded_{inner_output.name}"

    before, after = Tape(), Tape()
    if isinstance(height, int) and isinstance(width, int):
        # Constants: other tools fold a Shape of a known size, and not all know its start and end.
        size = _ints(before, "input_size", [height, width])
        up = [-(-side // multiple) * multiple for side in (height, width)]
        rounded = _ints(before, "padding/size", up)
    else:
        size = _node(before, "input_size/Shape", "Shape", [outer_input], start=2, end=4)
        rounded = _round_up(before, size, multiple)
    add_padding = _add_zeros if padding == "zeros" else _add_reflection
    add_padding(before, outer_input, inner_input, size, rounded)
    zero, axes = _ints(after, "crop/start", [0, 0]), _ints(after, "crop/axes", [2, 3])
    after.op("Slice", [inner_output, zero, size, axes], name="crop/Slice", output=outer_output)

    graph.inputs[0] = outer_input
    graph.outputs[0] = outer_output
    graph.insert_before(graph[0], before.nodes)
    graph.extend(after.nodes)


def _add_zeros(
    tape: Tape, image: ir.Value, padded: ir.Value, size: ir.Value, rounded: ir.Value
) -> None:
    missing = _node(tape, "padding/missing", "Sub", [rounded, size])
    none = _ints(tape, "padding/none", [0] * 6)
    pads = _node(tape, "padding/pads", "Concat", [none, missing], axis=0)
    tape.op("Pad", [image, pads], {"mode": "constant"}, name="padding/Pad", output=padded)


def _add_reflection(
    tape: Tape, image: ir.Value, padded: ir.Value, size: ir.Value, rounded: ir.Value
) -> None:
    """Gather reflected positions; the mode "reflect" of Pad is undefined for images smaller than
    the padding."""
    rows = _mirrored(tape, "padding/rows", size, rounded, 0)
    columns = _mirrored(tape, "padding/columns", size, rounded, 1)
    tall = _node(tape, "padding/tall", "Gather", [image, rows], axis=2)
    tape.op("Gather", [tall, columns], {"axis": 3}, name="padding/Gather", output=padded)


def _mirrored(tape: Tape, name: str, size: ir.Value, rounded: ir.Value, axis: int) -> ir.Value:
    """Indices min(p mod 2(n-1), 2(n-1) - p mod 2(n-1)) for p = 0, 1, ...; all are 0 for n = 1."""

    def scalar(label: str, vector: ir.Value) -> ir.Value:
        index = _scalar(tape, f"{name}/{label}_axis", axis)
        return _node(tape, f"{name}/{label}", "Gather", [vector, index], axis=0)

    zero, one, two = (_scalar(tape, f"{name}/{n}", n) for n in (0, 1, 2))
    last = _node(tape, f"{name}/last", "Sub", [scalar("size", size), one])
    period = _node(tape, f"{name}/period", "Mul", [last, two])
    divisor = _node(tape, f"{name}/divisor", "Max", [period, one])
    position = _node(tape, f"{name}/p", "Range", [zero, scalar("rounded", rounded), one])
    phase = _node(tape, f"{name}/phase", "Mod", [position, divisor])
    back = _node(tape, f"{name}/back", "Sub", [period, phase])
    return _node(tape, name, "Min", [phase, back])


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


def _scalar(tape: Tape, name: str, value: int) -> ir.Value:
    return _node(tape, name, "Constant", [], value=ir.tensor(np.asarray(value, np.int64)))


def _image(
    name: str, batch: ir.SymbolicDim | int | None, height: int | str, width: int | str
) -> ir.Value:
    return ir.Value(
        name=name,
        shape=ir.Shape([batch, 3, height, width]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
