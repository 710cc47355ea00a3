"""A float32 graph to one with explicit QuantizeLinear and DequantizeLinear pairs.

The pairs are placed by this pass and not by onnxruntime.quantization, whose QDQQuantizer takes
model-local functions well but gives the rounded tensor to all of its readers: here a tensor that a
convolution reads goes to residuals, skip connections, masks and offsets as well, which must see it
exact.

Weights are int8, symmetric, a scale an output channel. Activations have a scale a tensor and are
quantized where a convolution or product reads them, never where one writes: the residual stream
stays as it is. Biases stay float; TensorRT adds them in its int32 accumulator anyway.

Scales are rounded up to eight binary digits and at least 2**-24, which float16 and bfloat16 hold
exactly: the same int8 weights serve a graph whatever its other precision is, and a step grows by
less than 1 %.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deblur_export.export.graph import copied

Layout = Literal["tensorrt", "cpu"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
# Output channel of the weight, by operator; Gemm's depends on transB.
CHANNEL = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}
Array = NDArray[Any]
# Smallest and largest level: TensorRT is symmetric, CPUs want unsigned activations.
LEVELS: Mapping[Layout, Array] = {
    "tensorrt": np.array((-127, 127), np.int8),
    "cpu": np.array((0, 255), np.uint8),
}
DIGITS = 8  # of a scale, in binary: as many as bfloat16 has
SMALLEST = 2.0**-24  # scale: the smallest number of float16


@dataclass(frozen=True)
class Site:
    """A convolution or product that can be quantized: its node, the tensor it reads, its weight
    and the axis of the weight's output channels."""

    node: str
    data: str
    weight: str
    axis: int


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of a tensor."""

    scale: float
    zero: int


def find_sites(model: onnx.ModelProto) -> list[Site]:
    """Convolutions and products with a constant weight in the main graph, in its order."""
    weights = {t.name: len(t.dims) for t in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.domain or node.op_type not in CHANNEL or weights.get(node.input[1], 0) < 2:
            continue
        attributes = {a.name: a.i for a in node.attribute}
        grouped = node.op_type == "ConvTranspose" and attributes.get("group", 1) > 1
        stacked = node.op_type == "MatMul" and weights[node.input[1]] > 2
        if grouped or stacked or attributes.get("transA"):
            continue  # their channels are not one axis of the weight
        axis = 0 if attributes.get("transB") else CHANNEL[node.op_type]
        found.append(Site(node.name, node.input[0], node.input[1], axis))
    return found


def residual_sums(model: onnx.ModelProto, chosen: Collection[str]) -> list[str]:
    """Add nodes that join two chosen convolutions: TensorRT fuses such a sum into one of them if
    both of its inputs are quantized."""
    maker = {name: node for node in model.graph.node for name in node.output}
    convolutions = {n.output[0] for n in maker.values() if n.op_type == "Conv" and n.name in chosen}
    return [
        n.name
        for n in model.graph.node
        if n.op_type == "Add" and len(n.input) == 2 and convolutions.issuperset(n.input)
    ]


def read_tensors(model: onnx.ModelProto, sites: Iterable[Site]) -> list[str]:
    """Names of the activations that need a range: of all sites, and of the sums between them."""
    sites = list(sites)
    sums = set(residual_sums(model, {site.node for site in sites}))
    names = [site.data for site in sites]
    names += [name for node in model.graph.node if node.name in sums for name in node.input]
    return list(dict.fromkeys(names))


def grid(limits: tuple[float, float], layout: Layout) -> Grid:
    """Levels over a range that holds 0; a range of nothing gets a scale of 1."""
    low, high = limits
    first, last = (int(level) for level in LEVELS[layout])
    if low == high:
        return Grid(1.0, 0)
    if layout == "tensorrt":
        return Grid(float(portable_scale(np.array(max(-low, high) / last))), 0)
    scale = float(portable_scale(np.array((high - low) / (last - first))))
    return Grid(scale, first + round(-low / scale))


def portable_scale(scales: Array) -> NDArray[np.float32]:
    """Positive numbers, rounded up to the next that float32, float16 and bfloat16 all hold."""
    digits = np.maximum(2.0 ** (np.frexp(scales)[1] - DIGITS), SMALLEST)
    return np.asarray(np.ceil(scales / digits) * digits, np.float32)


def quantized(
    model: onnx.ModelProto,
    sites: Iterable[Site],
    grids: Mapping[str, Grid],
    layout: Layout,
) -> onnx.ModelProto:
    """A copy of the model in which these sites compute on eight bits.

    Args:
        model: float32.
        sites: those to quantize, of `find_sites`.
        grids: of every tensor of `read_tensors`.
        layout: tensorrt: int8 activations, and sums of two quantized convolutions as well.
            cpu: uint8 activations.
    """
    copy = copied(model)
    chosen = {site.node: site for site in sites}
    sums = residual_sums(model, chosen) if layout == "tensorrt" else []
    writer = _Writer(copy, grids, layout)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        if node.name in chosen:
            site = chosen[node.name]
            node.input[0] = writer.activation(site.data)
            node.input[1] = writer.weight(site.weight, site.axis)
        elif node.name in sums:
            node.input[:] = [writer.activation(name) for name in node.input]
        copy.graph.node.append(node)
    _drop_unused(copy.graph)
    return copy


class _Writer:
    """Appends each pair once, before its first reader."""

    def __init__(self, model: onnx.ModelProto, grids: Mapping[str, Grid], layout: Layout) -> None:
        self.graph, self.grids, self.layout = model.graph, grids, layout
        self.weights = {t.name: t for t in model.graph.initializer}
        self.made: dict[str, str] = {}

    def activation(self, name: str) -> str:
        if name not in self.made:
            given, kind = self.grids[name], LEVELS[self.layout].dtype
            scale = self._constant(f"{name}/scale", np.array(given.scale, np.float32))
            zero = self._constant(f"{name}/zero_point", np.array(given.zero, kind))
            low = f"{name}/quantized"
            self._node("QuantizeLinear", [name, scale, zero], low)
            self.made[name] = self._node("DequantizeLinear", [low, scale, zero], f"{name}/rounded")
        return self.made[name]

    def weight(self, name: str, axis: int) -> str:
        if name not in self.made:
            values, scales = quantized_weight(numpy_helper.to_array(self.weights[name]), axis)
            low = self._constant(f"{name}/quantized", values)
            scale = self._constant(f"{name}/scale", scales)
            zero = self._constant(f"{name}/zero_point", np.zeros(len(scales), np.int8))
            self.made[name] = self._node(
                "DequantizeLinear", [low, scale, zero], f"{name}/rounded", axis=axis
            )
        return self.made[name]

    def _constant(self, name: str, values: Array) -> str:
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        node = helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes)
        self.graph.node.append(node)
        return output


def quantized_weight(weight: Array, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Levels -127..127 of the weight's shape, and a scale for each index of `axis`."""
    others = tuple(place for place in range(weight.ndim) if place != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True).astype(np.float64)
    scales = portable_scale(np.where(largest > 0, largest / 127, 1))
    levels = np.rint(weight.astype(np.float64) / scales).astype(np.int8)
    return levels, scales.reshape(-1)


def _drop_unused(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
