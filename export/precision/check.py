"""Verify the precision that a graph computes in by its types, in fractions of multiply-adds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from deblur_export.errors import CheckFailedError
from deblur_export.export.graph import inlined, message_of
from deblur_export.export.precision import policy
from deblur_export.export.runtimes.emulated_session import element_types, emulated, float32_session
from deblur_export.manifest_blocks import MultiplyAdds
from deblur_export.precision import OVERFLOW_ADVICE, PRECISIONS, GraphPrecision

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = CONVOLUTIONS | {"MatMul", "Gemm"}
# Of the multiply-adds of all convolutions. The rest are heads of offsets, masks and rankings.
MIN_FRACTION = 0.95
SIDE = 64  # side in pixels of the image that multiply-adds are counted on if sizes are dynamic


@dataclass(frozen=True)
class PrecisionCheck:
    """How much of a graph computes in a low precision. Nothing is counted inside the loops and
    branches of function bodies.

    Attributes:
        precision: the low precision.
        convolutions, products: fractions, 0..1, of the multiply-adds of convolutions, and of
            convolutions and matrix products, in this precision.
    """

    precision: GraphPrecision
    convolutions: float
    products: float

    def rounded(self) -> MultiplyAdds:
        """The fractions as the manifest records them."""
        return MultiplyAdds(round(self.convolutions, 4), round(self.products, 4))


def check_precision(
    model: ir.Model,
    precision: GraphPrecision,
    min_fraction: float = MIN_FRACTION,
    refused: Collection[str] = (),
) -> PrecisionCheck:
    """Count the multiply-adds of convolutions and matrix products by type.

    A product is in the low precision if both of its factors are: the type after Casts counts, not
    the name of the node. Bodies of custom ops are included, except their box and one-hot filters,
    which only sum and shift.

    Args:
        model: the graph.
        precision: the precision that it must have.
        min_fraction: smallest fraction, 0..1, of the convolutions' multiply-adds in it.
        refused: operators that the builder of the target does not support in this precision, see
            `Target.refused`; they are not required to have it. Nor are convolutions of a spectrum.

    Raises:
        CheckFailedError: the fraction is smaller.
    """
    whole = inlined(message_of(model))
    types, macs = element_types(whole), multiply_adds(whole)
    wanted = TensorProto.DataType.Value(PRECISIONS[precision].onnx)
    totals = {True: [0, 0], False: [0, 0]}  # by "is a convolution": in the precision, all
    spectral = {str(value.name) for n in policy.spectral(model.graph) for value in n.outputs}
    excused = 0
    for node in products(whole):
        total = totals[node.op_type in CONVOLUTIONS]
        free = node.op_type in refused or node.output[0] in spectral
        excused += macs[node.output[0]] * free
        total[0] += macs[node.output[0]] * all(types[name] == wanted for name in node.input[:2])
        total[1] += macs[node.output[0]]
    convolutions, others = totals[True], totals[False]
    check = PrecisionCheck(
        precision,
        _fraction(*convolutions),
        _fraction(convolutions[0] + others[0], convolutions[1] + others[1]),
    )
    if _fraction(convolutions[0], convolutions[1] - excused) < min_fraction:
        advice = f"export again with deblur-export onnx --precision {precision}"
        if PRECISIONS[precision].narrow:
            advice = f"if too many tensors are close to its largest number, {OVERFLOW_ADVICE}"
        raise CheckFailedError(
            f"only {check.convolutions:.1%} of the convolutions' multiply-adds are in {precision}, "
            f"not {min_fraction:.0%}; {advice}"
        )
    return check


def products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions and matrix products of a graph whose functions are inlined, without those
    whose weight is a constant of a function body."""
    fixed = set[str]()
    for node in model.graph.node:
        if node.op_type == "Constant" or (node.op_type == "CastLike" and node.input[0] in fixed):
            fixed.update(node.output)
    return [n for n in model.graph.node if n.op_type in PRODUCTS and n.input[1] not in fixed]


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds by the name of the first output, from the shapes of a run in float32; the
    functions of the model are inlined."""
    nodes = products(model)
    names = dict.fromkeys(name for n in nodes for name in (*n.input[:2], n.output[0]))
    shapes = _shapes(model, list(names))
    return {node.output[0]: _count(node, shapes) for node in nodes}


def _shapes(model: onnx.ModelProto, names: list[str]) -> dict[str, tuple[int, ...]]:
    model = emulated(model)
    image = model.graph.input[0]
    del model.graph.output[:]
    for number, name in enumerate(names):
        model.graph.node.add(op_type="Shape", input=[name], output=[f"shape {number}"])
        model.graph.output.add(name=f"shape {number}")
    session = float32_session(model)
    sizes = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    free = (1, 1, SIDE, SIDE)  # the channels are never free
    feed = np.full([own or other for own, other in zip(sizes, free, strict=True)], 0.5, np.float32)
    found = session.run(None, {image.name: feed})
    return {name: tuple(shape.tolist()) for name, shape in zip(names, found, strict=True)}


def _count(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    data, weight, output = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return int(np.prod(output) * np.prod(weight[1:]))
    if node.op_type == "ConvTranspose":
        return int(np.prod(data) * np.prod(weight[1:]))
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return int(np.prod(output) * data[0 if transposed else -1])
