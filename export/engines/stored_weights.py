"""In which precision an engine of TensorRT for RTX stores its weights, read from its bytes.

Such an engine is compiled on the target machine and shows no layers without a GPU, but it carries
the weights as they were given, in one of few layouts.
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
LARGEST = 32  # weights to look for: nearly all of the arithmetic, and the search stays short
SMALLEST_BYTES = 1024  # fewer could be there by chance
# Of the weights looked for; where fewer are found, the layout is one not known here.
FOUND = 0.5


@dataclass(frozen=True)
class Weight:
    """Of a convolution or product: `own` is its precision in the file. Of an int8 weight, `levels`
    are what the file holds, and `values` what they stand for."""

    own: str
    values: NDArray[Any]
    levels: NDArray[np.int8] | None = None

    def forms(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """What an engine may hold, by precision. The file's own comes first: each miss reads the
        whole engine."""
        if self.levels is not None:
            yield "int8", self.levels
        for precision in sorted(FLOATS, key=lambda precision: precision != self.own):
            yield precision, self.values.astype(FLOATS[precision])


def stored_weights(engine: bytes, file: ModelFile) -> tuple[Census, Census] | None:
    """The largest weights of a file that an engine holds, by their types in the engine and by
    those in the file.

    Args:
        engine: serialized.
        file: the ONNX file that it was built from.

    Returns:
        None where half of them or more were not found.
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
    """Weights of convolutions and matrix products that are large and varied enough to be found."""
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
            along = [-1 if place == axis else 1 for place in range(values.ndim)]
            yield Weight("int8", values * scale.reshape(along), values)


def _precision(dtype: np.dtype[Any]) -> str:
    return next(precision for precision, own in FLOATS.items() if own == dtype)


def _stored_as(engine: bytes, weight: Weight) -> str | None:
    for precision, values in weight.forms():
        for axes in LAYOUTS[values.ndim]:
            if values.transpose(axes).tobytes() in engine:
                return precision
    return None
