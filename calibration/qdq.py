"""Insert explicit QuantizeLinear and DequantizeLinear pairs (QDQ pairs) into a float32 graph.

The pairs are inserted by this pass and not by onnxruntime.quantization: its QDQQuantizer supports
model-local functions, but passes the rounded tensor to all of its consumers. Here a tensor that a
convolution reads is also read by residuals, skip connections, masks and offsets, which need the
exact values.

Weights are int8, symmetric and per channel. Activations are quantized per tensor at the input of a
convolution or product and never at its output, so that the residual stream is not rounded. Biases
stay floating-point; TensorRT adds them in its int32 accumulator in any case.

Scales are rounded up to eight binary digits and are at least 2**-24, so that float16 and bfloat16
represent them exactly. The same int8 weights can therefore be used with any other precision of the
graph, and steps grow by less than 1 %.
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
# Axis of the output channels of the weight by operator; that of Gemm depends on transB.
CHANNEL = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}
Array = NDArray[Any]
# Smallest and largest level: TensorRT is symmetric, and CPUs are faster with unsigned activations.
LEVELS: Mapping[Layout, Array] = {
    "tensorrt": np.array((-127, 127), np.int8),
    "cpu": np.array((0, 255), np.uint8),
}
DIGITS = 8  # binary digits of a scale, as many as bfloat16 has
SMALLEST = 2.0**-24  # smallest scale: the smallest positive number of float16


@dataclass(frozen=True)
class QuantizableNode:
    """A convolution or product that can be quantized.

    Attributes:
        name: of the node.
        data: name of the activation that it reads.
        weight: name of its weight.
        axis: axis of the output channels of the weight.
    """

    name: str
    data: str
    weight: str
    axis: int


@dataclass(frozen=True)
class QuantizationParameters:
    """Scale and zero point of a tensor."""

    scale: float
    zero: int


def find_quantizable(model: onnx.ModelProto) -> list[QuantizableNode]:
    """Find the convolutions and products with a constant weight in the main graph, in its order."""
    weights = {t.name: len(t.dims) for t in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.domain or node.op_type not in CHANNEL or weights.get(node.input[1], 0) < 2:
            continue
        attributes = {a.name: a.i for a in node.attribute}
        grouped = node.op_type == "ConvTranspose" and attributes.get("group", 1) > 1
        stacked = node.op_type == "MatMul" and weights[node.input[1]] > 2
        if grouped or stacked or attributes.get("transA"):
            continue  # their channels are not a single axis of the weight
        axis = 0 if attributes.get("transB") else CHANNEL[node.op_type]
        found.append(QuantizableNode(node.name, node.input[0], node.input[1], axis))
    return found


def residual_sums(model: onnx.ModelProto, chosen: Collection[str]) -> list[str]:
    """Names of the Add nodes of two convolutions that are in `chosen`.

    TensorRT fuses such a sum into one of the convolutions if both inputs of the sum are quantized.
    """
    maker = {name: node for node in model.graph.node for name in node.output}
    convolutions = {n.output[0] for n in maker.values() if n.op_type == "Conv" and n.name in chosen}
    return [
        n.name
        for n in model.graph.node
        if n.op_type == "Add" and len(n.input) == 2 and convolutions.issuperset(n.input)
    ]


def quantized_tensors(model: onnx.ModelProto, nodes: Iterable[QuantizableNode]) -> list[str]:
    """Names of the activations that are quantized: the inputs of the nodes and of their sums."""
    nodes = list(nodes)
    sums = set(residual_sums(model, {node.name for node in nodes}))
    names = [node.data for node in nodes]
    names += [name for node in model.graph.node if node.name in sums for name in node.input]
    return list(dict.fromkeys(names))


def quantization_parameters(
    clipping_range: tuple[float, float], layout: Layout
) -> QuantizationParameters:
    """Scale and zero point for a clipping range that contains 0; an empty range gets scale 1."""
    low, high = clipping_range
    first, last = (int(level) for level in LEVELS[layout])
    if low == high:
        return QuantizationParameters(1.0, 0)
    if layout == "tensorrt":
        return QuantizationParameters(float(portable_scale(np.array(max(-low, high) / last))), 0)
    scale = float(portable_scale(np.array((high - low) / (last - first))))
    return QuantizationParameters(scale, first + round(-low / scale))


def portable_scale(scales: Array) -> NDArray[np.float32]:
    """Round positive numbers up to the next that float32, float16 and bfloat16 all represent."""
    digits = np.maximum(2.0 ** (np.frexp(scales)[1] - DIGITS), SMALLEST)
    return np.asarray(np.ceil(scales / digits) * digits, np.float32)


def quantized(
    model: onnx.ModelProto,
    nodes: Iterable[QuantizableNode],
    parameters: Mapping[str, QuantizationParameters],
    layout: Layout,
) -> onnx.ModelProto:
    """A copy of a model in which the given nodes are quantized.

    Args:
        model: float32 graph.
        nodes: those to quantize, from `find_quantizable`.
        parameters: of every tensor of `quantized_tensors`.
        layout: "tensorrt" for int8 activations, where sums of two quantized convolutions are
            quantized as well; "cpu" for uint8 activations.
    """
    copy = copied(model)
    chosen = {node.name: node for node in nodes}
    sums = residual_sums(model, chosen) if layout == "tensorrt" else []
    writer = _PairWriter(copy, parameters, layout)
    originals = list(copy.graph.node)
    del copy.graph.node[:]
    for node in originals:
        if node.name in chosen:
            quantizable = chosen[node.name]
            node.input[0] = writer.activation(quantizable.data)
            node.input[1] = writer.weight(quantizable.weight, quantizable.axis)
        elif node.name in sums:
            node.input[:] = [writer.activation(name) for name in node.input]
        copy.graph.node.append(node)
    _drop_unused(copy.graph)
    return copy


class _PairWriter:
    """Appends each QDQ pair once, before its first consumer."""

    def __init__(
        self,
        model: onnx.ModelProto,
        parameters: Mapping[str, QuantizationParameters],
        layout: Layout,
    ) -> None:
        self.graph, self.parameters, self.layout = model.graph, parameters, layout
        self.weights = {t.name: t for t in model.graph.initializer}
        self.made: dict[str, str] = {}

    def activation(self, name: str) -> str:
        if name not in self.made:
            given, kind = self.parameters[name], LEVELS[self.layout].dtype
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
    """Quantize a weight per channel.

    Args:
        weight: of any shape.
        axis: of the output channels.

    Returns:
        Levels in -127..127, int8 in the shape of the weight, and the scale of each channel.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True).astype(np.float64)
    scales = portable_scale(np.where(largest > 0, largest / 127, 1))
    levels = np.rint(weight.astype(np.float64) / scales).astype(np.int8)
    return levels, scales.reshape(-1)


def _drop_unused(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
