"""Decide which nodes of a graph stay in float32, each with its reason.

All others compute in the low precision: convolutions, matrix products (TensorRT and ONNX Runtime
accumulate them in float32), data movement, gates and residuals. So does LayerNormalization: ONNX
computes its mean and variance in float32 for any input type (`stash_type` 1).
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Iterator, Mapping

import onnx
import onnx_ir as ir

from deblur_export.plugins.function_body import DOMAIN
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.parameters import DECIDES, POSITIONS, SPECTRUM

FLOAT = ir.DataType.FLOAT
LINEAR = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
SHAPES_ONLY = frozenset({"Shape", "Size"})  # they read the shape only, not the values

SUMS = "sums over an image or a row: float16 overflows or loses small terms"
EXPONENTIAL = "an exponential or logarithm: converts an absolute error into a relative one"
NORMS = "the inside of a norm: squares exceed the range of float16 beyond 255, differences cancel"
GELU = "1 + erf(x) cancels for negative x"
NUMBERS = "computed from integers: numbers of pixels exceed the range of float16"
OUTPUT = "the output image: a residual is added to it in float32"
FOLLOWS = "all of its inputs are float32"
SERVES = "a QDQ pair with only float32 consumers"
FOREIGN = "an operator that is not ONNX's: which types it computes in is not known"
BRANCH = "a branch or a loop, whose inside stays float32"
NOT_ALLOWED = "ONNX does not support this type for it"

OPERATORS: Mapping[str, str] = {
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"), SUMS
    ),
    **dict.fromkeys(("GlobalAveragePool", "AveragePool", "CumSum", "Einsum"), SUMS),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "BatchNormalization"), SUMS),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "ReduceLogSumExp", "Exp", "Log", "Softplus"), EXPONENTIAL
    ),
    **dict.fromkeys(("Pow", "Sqrt", "Reciprocal", "Div", "LpNormalization"), NORMS),
    "Erf": GELU,
    "GridSample": POSITIONS,
}

# Of these, FFT2 is both, as its attribute says.
FORWARD, INVERSE = frozenset({"RFFT2", "FFT2"}), frozenset({"IRFFT2", "FFT2"})

COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
DECISIONS = COMPARISONS | {"TopK", "ArgMax", "ArgMin", "Round", "Floor", "Ceil", "Sign", "NonZero"}


def kept_nodes(
    graph: ir.Graph,
    low: ir.DataType,
    opset: int,
    refused: Mapping[str, str],
    keep: Mapping[str, str],
) -> dict[ir.Node, str]:
    """The nodes that stay in float32 with the reason, in the order of the graph.

    Args:
        graph: a float32 graph in which every value has a type.
        low: the type of all other nodes.
        opset: of the standard operators.
        refused: operators that the builder of the target does not support in this type, with the
            reason.
        keep: the reason, by name, of values that stay in float32 together with the nodes that
            compute and read them.
    """
    kept: dict[ir.Node, str] = {}
    for node in graph:
        reason = _own_reason(node, low, opset) or _refusal(node, refused)
        if reason:
            kept[node] = reason
        for value in _floats((*node.inputs, *node.outputs)):
            if str(value.name) in keep:
                kept.setdefault(node, keep[str(value.name)])
    for node in spectral(graph):
        kept.setdefault(node, SPECTRUM)
    for node in graph:
        for value, reason in _precise_inputs(node):
            _keep_producers(kept, value, reason)
    for value in graph.outputs:
        _keep_producers(kept, value, OUTPUT)
    for node in graph:
        if node not in kept and _follows(node, kept):
            kept[node] = FOLLOWS
        if node.op_type == "DequantizeLinear" and all(u in kept for u, _ in node.outputs[0].uses()):
            kept[node] = SERVES
    return {node: kept[node] for node in graph if node in kept}


def spectral(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes between a spectrum and its inverse transform, convolutions included; where none
    follows, up to the first convolution or matrix product."""
    nodes = [node for node in graph if node.domain == DOMAIN or _makes_float(node)]
    after, near = set[ir.Value | None](), set[ir.Value | None]()
    readers: list[tuple[ir.Node, bool]] = []
    for node in nodes:
        if node.domain == DOMAIN:
            if node.op_type in FORWARD and not node.attributes.get_int("inverse", 0):
                after.update(node.outputs)
                near.update(node.outputs)
        elif after.intersection(node.inputs):
            after.update(node.outputs)
            first = bool(near.intersection(node.inputs))
            readers.append((node, first))
            if first and node.op_type not in LINEAR:
                near.update(node.outputs)
    before = set[ir.Value | None]()
    for node in reversed(nodes):
        if (node.domain == DOMAIN and node.op_type in INVERSE) or (
            node.domain != DOMAIN and before.intersection(node.outputs)
        ):
            before.update(node.inputs)
    yield from (node for node, first in readers if first or before.intersection(node.outputs))


def _own_reason(node: ir.Node, low: ir.DataType, opset: int) -> str:
    if node.domain == DOMAIN or not _makes_float(node):
        return ""
    if node.domain:
        return FOREIGN
    if subgraphs(node):
        return BRANCH
    if node.op_type in DECISIONS:
        return DECIDES
    if node.op_type in ("Cast", "ConstantOfShape", "Range"):
        return NUMBERS
    if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
        return NORMS
    if node.op_type == "Sub" and any(_is_reduction(value) for value in node.inputs):
        return NORMS
    if not allows(node.op_type, opset, low):
        return NOT_ALLOWED
    return OPERATORS.get(node.op_type, "")


def _refusal(node: ir.Node, refused: Mapping[str, str]) -> str:
    return "" if node.domain else refused.get(node.op_type, "")


def _is_reduction(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type.startswith("Reduce")


def _precise_inputs(node: ir.Node) -> Iterator[tuple[ir.Value, str]]:
    """Inputs of a node whose values must not be rounded."""
    if node.domain == DOMAIN:
        for tensor, value in OPS[node.op_type].inputs_of(node).values():
            if value is not None and tensor.fp32:
                yield value, tensor.fp32
    elif node.op_type in DECISIONS or (node.op_type == "Cast" and not _makes_float(node)):
        yield from ((value, DECIDES) for value in _floats(node.inputs))
    elif node.op_type == "GridSample" and node.inputs[1] is not None:
        yield node.inputs[1], POSITIONS


def _keep_producers(kept: dict[ir.Node, str], value: ir.Value, reason: str) -> None:
    """Keep the nodes that compute a value, back to the nearest convolutions and matrix products.

    These are kept as well if a decision depends on them, or if they compute only coordinates, as
    heads of few channels do. Those that also compute features are too large to keep, and the
    coordinates after them are the result of a bounded function.
    """
    waiting, between, linear = [value], dict[ir.Node, None](), dict[ir.Node, None]()
    while waiting:
        node = waiting.pop().producer()
        if node is None or node in between or node.domain == DOMAIN or not _makes_float(node):
            continue
        if node.op_type in LINEAR:
            linear[node] = None
        else:
            between[node] = None
            waiting.extend(_floats(node.inputs))
    for node in between:
        kept.setdefault(node, reason)
    for node in linear:
        if reason == DECIDES or (reason == POSITIONS and _serves(node, between, value)):
            kept.setdefault(node, reason)


def _serves(node: ir.Node, between: Container[ir.Node], value: ir.Value) -> bool:
    """Whether all outputs of a node are used only to compute `value`."""
    return all(
        made is value
        or all(user in between and _serves(user, between, value) for user, _ in made.uses())
        for made in node.outputs
    )


def _follows(node: ir.Node, kept: Mapping[ir.Node, str]) -> bool:
    """Whether a cheap node has only float32 inputs, so that rounding them would gain nothing."""
    if node.domain == DOMAIN or node.op_type in LINEAR or not _makes_float(node):
        return False
    data = [value for value in _floats(node.inputs) if not is_constant(value)]
    return bool(data) and all(
        value.producer() is None or value.producer() in kept for value in data
    )


def _makes_float(node: ir.Node) -> bool:
    return node.outputs[0].dtype == FLOAT


def _floats(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    return [value for value in values if value is not None and value.dtype == FLOAT]


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The branches of an If, or the body of a Loop or Scan."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found += attribute.as_graphs()
    return found


def is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def allows(op_type: str, opset: int, low: ir.DataType) -> bool:
    """Whether ONNX supports this type for the output of an operator."""
    schema = onnx.defs.get_schema(op_type, opset, "")
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return f"tensor({low.name.lower()})" in allowed.get(schema.outputs[0].type_str, ())


@functools.cache
def typed_like_output(op_type: str, opset: int) -> tuple[tuple[bool, ...], bool]:
    """For each input of a standard operator, whether it has the type of the first output; and
    whether the last one is variadic."""
    schema = onnx.defs.get_schema(op_type, opset, "")
    output = schema.outputs[0].type_str
    variadic = bool(schema.inputs) and (
        schema.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    )
    return tuple(parameter.type_str == output for parameter in schema.inputs), variadic
