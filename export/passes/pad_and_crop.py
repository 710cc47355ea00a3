"""Add padding to the size that a network accepts to the graph, and a crop of its output, so that it
accepts any H x W."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from deblur_export.image_shape import OutputShape, Shape, enlarged
from deblur_export.models.image_spec import ImageSpec

Size = tuple[int, int] | tuple[Literal["height"], Literal["width"]]


def pad_and_crop(model: ir.Model, images: ImageSpec, size: Size) -> None:
    """Insert padding (right, bottom) before the graph and a crop after it, in place.

    The new input and output have the names of the old ones, which become `padded_<name>`. Nothing
    is inserted where every size fits the network; the shapes of the ends are then declared alone.

    Args:
        model: has one image input and one image output, `images.scale` times as high and wide,
            which accepts the sizes that `images.padded` gives.
        images: which images the network accepts and gives.
        size: height and width of the new input; numbers, or the names of free dimensions.
    """
    graph = model.graph
    inner_input, inner_output = graph.inputs[0], graph.outputs[0]
    assert inner_input.shape is not None
    batch = inner_input.shape[0]
    shape: Shape = (batch if isinstance(batch, int) else "batch", images.channels, size[0], size[1])
    if "height" in size and images.padded(1, 1) == (1, 1) and not images.square:
        inner_input.shape = ir.Shape(shape)
        inner_output.shape = ir.Shape(enlarged(shape, images.scale))
        return
    outer_input = _image(str(inner_input.name), shape)
    outer_output = _image(str(inner_output.name), enlarged(shape, images.scale))
    inner_input.name = f"padded_{inner_input.name}"
    inner_output.name = f"padded_{inner_output.name}"

    before, after = Tape(), Tape()
    if isinstance(size[0], int) and isinstance(size[1], int):
        # Constants: other tools fold a Shape of a known size, and not all know its start and end.
        own = _ints(before, "input_size", list(size))
        padded = _ints(before, "padding/size", list(images.padded(size[0], size[1])))
        end = _ints(after, "crop/end", [side * images.scale for side in size])
    else:
        own = _node(before, "input_size/Shape", "Shape", [outer_input], start=2, end=4)
        padded = _padded_size(before, own, images)
        end = own
        if images.scale > 1:
            factor = _ints(after, "crop/scale", [images.scale])
            end = _node(after, "crop/end", "Mul", [own, factor])
    add_padding = _add_zeros if images.padding == "zeros" else _add_reflection
    add_padding(before, outer_input, inner_input, own, padded)
    zero, axes = _ints(after, "crop/start", [0, 0]), _ints(after, "crop/axes", [2, 3])
    after.op("Slice", [inner_output, zero, end, axes], name="crop/Slice", output=outer_output)

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


def _padded_size(tape: Tape, size: ir.Value, images: ImageSpec) -> ir.Value:
    """`images.padded` of a size [2]: each side in multiples, no less than the smallest that is
    accepted, and both equal if they must be."""
    up = _node(
        tape, "padding/up", "Add", [size, _ints(tape, "padding/ceil", [images.multiple - 1])]
    )
    factor = _ints(tape, "padding/multiple", [images.multiple])
    count = _node(tape, "padding/count", "Div", [up, factor])
    padded = _node(tape, "padding/size", "Mul", [count, factor])
    least = images.padded(1, 1)[0]
    if least > images.multiple:
        smallest = _ints(tape, "padding/minimum", [least])
        padded = _node(tape, "padding/least", "Max", [padded, smallest])
    if images.square:
        swap = _ints(tape, "padding/swap", [1, 0])
        swapped = _node(tape, "padding/swapped", "Gather", [padded, swap], axis=0)
        padded = _node(tape, "padding/square", "Max", [padded, swapped])
    return padded


def _node(tape: Tape, name: str, op: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
    value = tape.op(op, inputs, attributes, name=name)
    value.name = name
    return value


def _ints(tape: Tape, name: str, values: list[int]) -> ir.Value:
    return _node(tape, name, "Constant", [], value=ir.tensor(np.asarray(values, np.int64)))


def _scalar(tape: Tape, name: str, value: int) -> ir.Value:
    return _node(tape, name, "Constant", [], value=ir.tensor(np.asarray(value, np.int64)))


def _image(name: str, shape: OutputShape) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
