"""Bring another exporter's graph into the one outward form of our files, in place: the input
`image`, float32 [N, C, H, W], RGB in 0..1, and the output `restored` of the same kind."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from deblur_export.export.adopt.ends import UNIT, Ends, flipped
from deblur_export.export.passes.pad_and_crop import Size, pad_and_crop
from deblur_export.image_shape import Shape, enlarged
from deblur_export.models.image_spec import ImageSpec

IMAGE, RESTORED = "image", "restored"
# Prefixes of names that are given here.
OWN = ("image", "restored", "padded_", "input_size", "padding/", "crop/", "adopted/")
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def adapt(
    model: ir.Model,
    ends: Ends,
    images: ImageSpec,
    shape: Shape,
    constants: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    """Add what is missing between the outward form and the graph's own ends.

    Args:
        model: from `source.normalized`.
        ends: how the graph wants the image.
        images: which images it accepts; if any size is free, or `shape` is no size that it
            accepts, padding is added and the output is cropped.
        shape: of the new input.
        constants: values of the further inputs by name.
    """
    graph = model.graph
    _make_room(graph)
    inputs = {value.name: value for value in graph.inputs}
    for name, array in constants.items():
        value = inputs[name]
        graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        value.shape = ir.Shape(array.shape)
        graph.register_initializer(value)
    inner_input = next(value for value in graph.inputs)
    wanted = next(name for name in (ends.output, _moved(ends.output)) if _has(graph, name))
    inner_output = next(value for value in graph.outputs if value.name == wanted)
    batch, channels = shape[:2]
    sides = images.padded(*shape[2:]) if isinstance(shape[2], int) else shape[2:]  # type: ignore[arg-type]
    accepted: Any = (batch, channels, *sides)
    _before(graph, inner_input, ends, accepted)
    _after(graph, inner_output, ends, enlarged(accepted, images.scale))
    if sides != shape[2:] or not isinstance(shape[2], int):
        size: Size = (shape[2], shape[3])  # type: ignore[assignment]
        pad_and_crop(model, images, size)


def _moved(name: str) -> str:
    return f"original/{name}"


def _has(graph: ir.Graph, name: str) -> bool:
    return any(value.name == name for value in graph.outputs)


def _make_room(graph: ir.Graph) -> None:
    """Rename values and nodes whose names are needed here."""
    values = {v for node in graph for v in node.outputs} | set(graph.inputs)
    for value in itertools.chain(list(graph.initializers.values()), values):
        if value.name is not None and value.name.startswith(OWN):
            if value.is_initializer():
                graph.initializers.pop(value.name)
                value.name = _moved(value.name)
                graph.initializers[value.name] = value
            else:
                value.name = _moved(value.name)
    for node in graph:
        if node.name is not None and node.name.startswith(OWN):
            node.name = _moved(node.name)


class _Chain:
    """Nodes one after the other, from a value of float32."""

    def __init__(self, graph: ir.Graph, value: ir.Value, part: str) -> None:
        self.graph, self.value, self.part = graph, value, part
        self.nodes: list[ir.Node] = []

    def add(self, op: str, *constants: Any, dtype: ir.DataType | None = None, **more: Any) -> None:
        """Append a node that reads the last value and constants."""
        name = f"adopted/{self.part}/{op}"
        name += f"_{len(self.nodes)}" if any(n.name == name for n in self.nodes) else ""
        inputs = [self.value]
        for number, array in enumerate(constants):
            label = f"{name}/{number}"
            constant = ir.Value(name=label, const_value=ir.tensor(array, name=label))
            constant.shape = ir.Shape(array.shape)
            constant.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            self.graph.register_initializer(constant)
            inputs.append(constant)
        attributes = [
            ir.AttrInt64s(k, v) if isinstance(v, list) else ir.AttrInt64(k, int(v))
            for k, v in more.items()
        ]
        node = ir.Node("", op, inputs, attributes, name=name)
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(dtype or self.value.dtype or ir.DataType.FLOAT)
        self.nodes.append(node)
        self.value = node.outputs[0]

    def cast(self, dtype: str) -> None:
        kind = ir.DataType.from_numpy(np.dtype(dtype))
        self.add("Cast", dtype=kind, to=kind)


def _before(graph: ir.Graph, inner: ir.Value, ends: Ends, shape: Shape) -> None:
    """From an image to the graph's own input."""
    outer = ir.Value(name=IMAGE, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    low, high = ends.range
    chain = _Chain(graph, outer, "input")
    if ends.colour == "BGR" and shape[1] > 1:
        chain.add("Gather", np.array(flipped(shape[1]), np.int64), axis=1)
    if ends.range != UNIT and high - low != 1:
        chain.add("Mul", np.array(high - low, np.float32))
    if low:
        chain.add("Add", np.array(low, np.float32))
    if ends.axes == "NHWC":
        chain.add("Transpose", perm=TO_NHWC)
    if ends.dtype == "uint8":
        chain.add("Round")
        chain.add("Clip", np.array(0, np.float32), np.array(255, np.float32))
    if inner.dtype is not None and inner.dtype != ir.DataType.FLOAT:
        chain.cast(inner.dtype.numpy().name)
    for user, index in list(inner.uses()):
        user.replace_input_with(index, chain.value)
    graph.inputs[:] = [outer]
    if len(graph):
        graph.insert_before(graph[0], chain.nodes)


def _after(graph: ir.Graph, inner: ir.Value, ends: Ends, shape: Any) -> None:
    """From the graph's own output to the restored image."""
    low, high = ends.output_range
    chain = _Chain(graph, inner, "output")
    if inner.dtype != ir.DataType.FLOAT:
        chain.cast("float32")
    if ends.output_axes == "NHWC":
        chain.add("Transpose", perm=TO_NCHW)
    if low:
        chain.add("Sub", np.array(low, np.float32))
    if high - low != 1:
        chain.add("Div", np.array(high - low, np.float32))
    if ends.colour == "BGR" and shape[1] > 1:
        chain.add("Gather", np.array(flipped(shape[1]), np.int64), axis=1)
    if not chain.nodes and inner.producer() is None:  # the image itself
        chain.add("Identity")
    graph.extend(chain.nodes)
    inner.shape = None
    # Without nodes it is the value itself: OpenVINO merges the ends of an Identity, and may give
    # them the other name.
    outer = chain.value
    outer.name = RESTORED
    outer.shape, outer.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    graph.outputs[:] = [outer]
