"""In which precision an engine of TensorRT for RTX stores its weights, read from its bytes.

Such an engine is compiled on the target machine and shows no layers without a GPU, but it carries
the weights as they were given, in one of few layouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from deblur_export.export.engines.proof import Census

WITH_WEIGHTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
TYPES = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
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


def stored_weights(engine: bytes, path: Path) -> Census | None:
    """The largest weights of the file that the engine holds, by their type there.

    Args:
        engine: a serialized engine.
        path: the ONNX file that it was built from.

    Returns:
        None where half of them or more were not found.
    """
    weights = list(_weights(onnx.load(path)))[:LARGEST]
    counts: dict[str, int] = {}
    for weight in weights:
        precision = _stored_as(engine, weight)
        if precision is not None:
            counts[precision] = counts.get(precision, 0) + 1
    if not weights or sum(counts.values()) <= FOUND * len(weights):
        return None
    return Census("largest weights found in the engine", counts)


def _weights(model: onnx.ModelProto) -> Iterator[NDArray[np.generic]]:
    """Weights of convolutions and matrix products, the largest first."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {
        name
        for node in model.graph.node
        if node.op_type in WITH_WEIGHTS
        for name in node.input[:2]
        if name in initializers and len(initializers[name].dims) in LAYOUTS
    }
    arrays = (numpy_helper.to_array(initializers[name]) for name in sorted(names))
    varied = (array for array in arrays if array.size * 2 >= SMALLEST_BYTES and np.ptp(array) > 0)
    yield from sorted(varied, key=lambda array: -array.size)


def _stored_as(engine: bytes, weight: NDArray[np.generic]) -> str | None:
    # The file's own type first: each miss reads the whole engine.
    for precision, dtype in sorted(TYPES.items(), key=lambda item: item[1] != weight.dtype):
        values = weight.astype(dtype)
        for axes in LAYOUTS[weight.ndim]:
            if values.transpose(axes).tobytes() in engine:
                return precision
    return None
