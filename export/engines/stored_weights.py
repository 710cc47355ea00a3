"""Finds the precision in which an engine of TensorRT for RTX stores its weights, from its bytes.

Such an engine is compiled on the target machine and shows no layers without a GPU, but it contains
the weights of the file unchanged, in one of a few layouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from deblur_export.artifact import ModelFile
from deblur_export.engine_record import Census
from deblur_export.precision import GRAPH_PRECISIONS, PRECISIONS

WITH_WEIGHTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
FLOATS: Mapping[str, np.dtype[Any]] = {
    name: ir.DataType[PRECISIONS[name].onnx].numpy() for name in GRAPH_PRECISIONS
}
# Layouts seen: as in the file, channels last, and (of large 1x1 kernels) input channels first.
LAYOUTS: Mapping[int, tuple[tuple[int, ...], ...]] = {
    4: ((0, 1, 2, 3), (0, 2, 3, 1), (1, 2, 3, 0)),
    2: ((0, 1), (1, 0)),
}
LARGEST = 32  # number of weights to search: nearly all of the arithmetic, in a short time
SMALLEST_BYTES = 1024  # fewer bytes could match by chance
# Fraction of the searched weights; if fewer are found, the engine has an unknown layout.
FOUND = 0.5


@dataclass(frozen=True)
class Weight:
    """A weight of a convolution or matrix product; `own` is its precision in the file. `levels` are
    the stored integers of an int8 weight, `values` the dequantized values."""

    own: str
    values: NDArray[Any]
    levels: NDArray[np.int8] | None = None

    def forms(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The weight as an engine may store it, by precision. The precision of the file comes
        first, because each failed search reads the whole engine."""
        if self.levels is not None:
            yield "int8", self.levels
        for precision in sorted(FLOATS, key=lambda precision: precision != self.own):
            yield precision, self.values.astype(FLOATS[precision])


def stored_weights(engine: bytes, file: ModelFile) -> tuple[Census, Census] | None:
    """Search an engine for the largest weights of its file and count them by type.

    Args:
        engine: the serialized engine.
        file: the ONNX file from which it was built.

    Returns:
        Counts by the types in the engine and by those in the file, of the weights that were found;
        None if half of them or more were not found.
    """
    weights = sorted(_weights(file.proto), key=lambda weight: -weight.values.size)[:LARGEST]
    stored = [(weight.own, _stored_as(engine, weight)) for weight in weights]
    found = [(own, precision) for own, precision in stored if precision is not None]
    if not weights or len(found) <= FOUND * len(weights):
        return None
    return (
        _census("largest weights found in the engine", (precision for _, precision in found)),
        _census("the same weights in the file", (own for own, _ in found)),
    )


def _census(what: str, precisions: Iterable[str]) -> Census:
    counts: dict[str, int] = {}
    for precision in precisions:
        counts[precision] = counts.get(precision, 0) + 1
    return Census(what, counts)


def _weights(model: onnx.ModelProto) -> Iterator[Weight]:
    """Weights of convolutions and matrix products that are large and varied enough to search."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    names = {
        name for node in model.graph.node if node.op_type in WITH_WEIGHTS for name in node.input[:2]
    }
    for name in sorted(names):
        pair = pairs.get(name)
        stored = constants.get(pair.input[0] if pair else name)
        if stored is None or len(stored.dims) not in LAYOUTS:
            continue
        values = numpy_helper.to_array(stored)
        if values.size * (1 if pair else 2) < SMALLEST_BYTES or np.ptp(values) == 0:
            continue
        if pair is None:
            yield Weight(_precision(values.dtype), values)
        else:
            scale = numpy_helper.to_array(constants[pair.input[1]]).astype(np.float32)
            axis = next((a.i for a in pair.attribute if a.name == "axis"), 1)
            shape = [-1 if index == axis else 1 for index in range(values.ndim)]
            yield Weight("int8", values * scale.reshape(shape), values)


def _precision(dtype: np.dtype[Any]) -> str:
    return next(precision for precision, own in FLOATS.items() if own == dtype)


def _stored_as(engine: bytes, weight: Weight) -> str | None:
    for precision, values in weight.forms():
        for axes in LAYOUTS[values.ndim]:
            if values.transpose(axes).tobytes() in engine:
                return precision
    return None
