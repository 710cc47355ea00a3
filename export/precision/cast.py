"""Convert a float32 graph to a strongly typed one in float16 or bfloat16 with explicit Casts.

Existing tools are not suitable: onnxruntime.transformers.float16 and the float16 module of
onnxconverter-common convert the inside of model-local functions or leave their callers
inconsistent, do not support bfloat16, clip weights beyond 65504 and decide by operator name only.
AutoCast of ModelOpt treats local functions as foreign operators, pins older versions of onnx and
onnxruntime, and replaces dynamic sizes by 1. None of them traces a coordinate or a decision back to
the layer that computes it.

Custom ops stay single nodes of the same name. Inputs that `OpSpec` declares as "T" are in the low
precision, and those declared as "tensor(float)" (positions, steps of the scan, scores) in float32.
The function bodies sum in float32 where it matters and return the type of their data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript.version_converter import convert_version

from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import message_of
from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.export.passes.forget_dynamic_shapes import forget_dynamic_shapes
from deblur_export.export.precision import policy
from deblur_export.export.precision.policy import FLOAT
from deblur_export.plugins.function_body import DOMAIN
from deblur_export.plugins.ops import OPS
from deblur_export.precision import OVERFLOW_ADVICE, PRECISIONS, GraphPrecision, Precision
from deblur_export.target import TARGETS, TargetName

# QDQ pairs support every type from opset 19 on, and the converter goes from 18 to this one.
PAIRS_OPSET = 22
PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Casting:
    """The result of a conversion.

    Attributes:
        precision: the low precision.
        kept: names of the nodes in float32 by the reason for it.
        lowered: number of nodes in the low precision.
        weights: number of weights in the low precision.
        flushed: number of weights that became zero.
        subnormal: number of weights that lost digits.
    """

    precision: GraphPrecision
    kept: dict[str, list[str]]
    lowered: int
    weights: int
    flushed: int
    subnormal: int


def lower_precision(
    model: ir.Model,
    precision: GraphPrecision,
    target: TargetName,
    keep: Mapping[str, str] | None = None,
) -> tuple[ir.Model, Casting]:
    """A strongly typed copy of a complete float32 graph; its inputs and outputs stay float32.

    QDQ pairs are not moved; their floating-point type follows from the nodes that they connect.

    Args:
        model: from `to_onnx.lower` or `qdq.quantized`, or read from an exported file.
        precision: fp16 or bf16.
        target: that of the graph; the bodies of custom ops are attached again for this target.
        keep: the reason, by name, of values that stay float32 with the nodes around them.

    Returns:
        The copy and a description of the conversion.

    Raises:
        DeblurExportError: a weight is out of the range of the precision.
    """
    record = PRECISIONS[precision]
    low = element_type(record)
    types = _element_types(model)
    model = model.clone()
    model.functions.clear()
    pairs = any(node.op_type in PAIRS for node in model.graph)
    least = max(record.opset, PAIRS_OPSET if pairs else 1)
    if model.opset_imports[""] < least:
        convert_version(model, least)
    for value in _values(model.graph):
        if value.dtype is None and value.name in types:
            value.type = ir.TensorType(types[value.name])
    opset = model.opset_imports[""]
    refused = TARGETS[target].refused.get(precision, {})
    kept = policy.kept_nodes(model.graph, low, opset, refused, keep or {})
    casting = _Caster(model.graph, record, low, opset, kept).run(precision)
    attach_functions(model, target)
    for function in model.functions.values():
        function.opset_imports[""] = opset
    forget_dynamic_shapes(model)
    return model, casting


def element_type(precision: Precision) -> ir.DataType:
    """What the IR calls it."""
    return ir.DataType[precision.onnx]


def _element_types(model: ir.Model) -> dict[str, ir.DataType]:
    """Types of all values of the main graph by shape inference; graph passes do not set them."""
    inferred = onnx.shape_inference.infer_shapes(message_of(model), strict_mode=True)
    return {
        info.name: ir.DataType(info.type.tensor_type.elem_type)
        for info in inferred.graph.value_info
    }


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


@dataclass
class _Caster:
    graph: ir.Graph
    precision: Precision
    low: ir.DataType
    opset: int
    kept: Mapping[ir.Node, str]
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    weights: int = 0
    flushed: int = 0
    subnormal: int = 0
    too_large: list[str] = field(default_factory=list)

    def run(self, precision: GraphPrecision) -> Casting:
        """Set the type of every node and insert Casts, in place."""
        lowered = sum([self._type(node) for node in list(self.graph)])
        if self.too_large:
            raise DeblurExportError(
                f"weights beyond the range of {precision} ({self.precision.largest:.5g}): "
                f"{', '.join(self.too_large)}; {OVERFLOW_ADVICE}"
            )
        self._restore_outputs()
        self._drop_unused_constants()
        kept: dict[str, list[str]] = {}
        for node, reason in self.kept.items():
            kept.setdefault(reason, []).append(str(node.name))
        return Casting(precision, kept, lowered, self.weights, self.flushed, self.subnormal)

    def _type(self, node: ir.Node) -> bool:
        """Set the types of a node; returns whether it computes in the low precision."""
        if node.op_type == "Constant" or (not node.domain and node.op_type in policy.SHAPES_ONLY):
            return False
        typed = _typed_inputs(node, self.opset)
        makes_float = node.outputs[0].dtype == FLOAT
        lowered = makes_float and any(typed) and node not in self.kept
        rounds_low = node.op_type == "QuantizeLinear" and _type_of(node.inputs[0]) == self.low
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (FLOAT, self.low):
                wanted = self.low if rounds_low or (lowered and typed[index]) else FLOAT
                node.replace_input_with(index, self._as(value, wanted, node))
        for graph in policy.subgraphs(node):
            self._widen_captured(graph, node)
        if lowered:
            for value in _typed_outputs(node):
                if value.dtype == FLOAT:
                    value.type = ir.TensorType(self.low)
            if node.op_type == "LayerNormalization":
                node.attributes["stash_type"] = ir.AttrInt64("stash_type", 1)
        return lowered

    def _widen_captured(self, graph: ir.Graph, user: ir.Node) -> None:
        """Let the nodes in a branch or loop read values of the main graph in float32."""
        for node in ir.traversal.RecursiveGraphIterator(graph):
            for index, value in enumerate(node.inputs):
                if value is not None and value.graph is self.graph and value.dtype == self.low:
                    node.replace_input_with(index, self._as(value, FLOAT, user))

    def _as(self, value: ir.Value, wanted: ir.DataType, user: ir.Node) -> ir.Value:
        if value.dtype == wanted:
            return value
        key = value, wanted
        if key not in self.casts:
            make = self._constant if policy.is_constant(value) else self._cast
            self.casts[key] = make(value, wanted, user)
        return self.casts[key]

    def _cast(self, value: ir.Value, wanted: ir.DataType, user: ir.Node) -> ir.Value:
        name = f"{value.name}/{wanted.name.lower()}"
        attribute = ir.AttrInt64("to", int(wanted))
        node = ir.Node("", "Cast", [value], [attribute], name=f"{name}/Cast")
        result = node.outputs[0]
        result.name, result.type, result.shape = name, ir.TensorType(wanted), value.shape
        self.graph.insert_before(user, node)
        return result

    def _constant(self, value: ir.Value, wanted: ir.DataType, user: ir.Node) -> ir.Value:
        exact = constant_array(value)
        with np.errstate(over="ignore"):
            rounded = exact.astype(wanted.numpy())
        self._account(str(value.name), exact, rounded)
        result = ir.Value(
            name=f"{value.name}/{wanted.name.lower()}",
            shape=ir.Shape(exact.shape),
            type=ir.TensorType(wanted),
            const_value=ir.tensor(rounded, name=value.name),
        )
        self.graph.initializers[str(result.name)] = result
        return result

    def _account(self, name: str, exact: np.ndarray, rounded: np.ndarray) -> None:
        finite = np.isfinite(exact)
        if not np.isfinite(rounded[finite].astype(np.float32)).all():
            self.too_large.append(f"{name} (up to {np.abs(exact[finite]).max():.3g})")
            return
        size = np.abs(exact[exact != 0])
        self.weights += exact.size
        self.flushed += int(np.count_nonzero(rounded[exact != 0] == 0))
        self.subnormal += int(np.count_nonzero(size < 2.0**self.precision.min_power))

    def _restore_outputs(self) -> None:
        for index, inner in enumerate(self.graph.outputs):
            if inner.dtype == FLOAT:
                continue
            outer = ir.Value(name=inner.name, shape=inner.shape, type=ir.TensorType(FLOAT))
            inner.name = f"{outer.name}/{self.low.name.lower()}"
            to = ir.AttrInt64("to", int(FLOAT))
            node = ir.Node("", "Cast", [inner], [to], outputs=[outer], name=f"{outer.name}/Cast")
            self.graph.append(node)
            self.graph.outputs[index] = outer

    def _drop_unused_constants(self) -> None:
        """Remove constants that were replaced by a rounded copy, which gets their name."""
        for (value, _), copy in self.casts.items():
            if not policy.is_constant(value) or value.uses() or copy.name is None:
                continue
            producer, name = value.producer(), str(value.name)
            if producer is None:
                del self.graph.initializers[name]
            else:
                self.graph.remove(producer, safe=True)
            del self.graph.initializers[copy.name]
            copy.name = name
            self.graph.initializers[name] = copy


def _type_of(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None else value.dtype


def _typed_inputs(node: ir.Node, opset: int) -> list[bool]:
    """Which inputs have the precision of the node; the others do not change."""
    if node.domain and node.domain != DOMAIN:
        return [False] * len(node.inputs)
    if node.domain == DOMAIN:
        inputs = OPS[node.op_type].inputs_of(node).values()
        return [tensor.type == "T" for tensor, _ in inputs]
    typed, variadic = policy.typed_like_output(node.op_type, opset)
    if variadic:
        typed += typed[-1:] * (len(node.inputs) - len(typed))
    return list(typed)


def _typed_outputs(node: ir.Node) -> list[ir.Value]:
    """The outputs that have the precision of the node."""
    if node.domain != DOMAIN:
        return list(node.outputs)
    declared = OPS[node.op_type].outputs.values()
    return [v for v, tensor in zip(node.outputs, declared, strict=True) if tensor.type == "T"]


def constant_array(value: ir.Value) -> np.ndarray:
    """The values of an initializer or of the output of a Constant node."""
    tensor = value.const_value
    if tensor is None:
        producer = value.producer()
        assert producer is not None
        attribute = next(iter(producer.attributes.values()))
        tensor = attribute.as_tensor() if attribute.name == "value" else None
        if tensor is None:
            return np.asarray(attribute.value, np.float32)
    return np.asarray(tensor.numpy())
