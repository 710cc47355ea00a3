"""Collect histograms of the tensors of a graph on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from deblur_export.calibration.histogram import Histogram
from deblur_export.export.graph import with_outputs
from deblur_export.export.runtimes.ort_options import session_options

Images = NDArray[np.float32]


def cpu_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime on the CPU, whose waiting threads do not spin."""
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )


def observe(
    model: onnx.ModelProto,
    names: Sequence[str],
    images: Sequence[Images],
    histograms: dict[str, Histogram],
    done: int,
    step: Callable[[int], None],
) -> None:
    """Add the values of tensors to their histograms, image by image.

    Args:
        model: float32 graph with one input.
        names: of the tensors.
        images: each [N, 3, H, W], float32 in 0..1.
        histograms: by name of the tensor; changed in place.
        done: number of images that the histograms contain already.
        step: called after each image with the number of images done.

    Raises:
        DeblurExportError: a value is infinite or NaN.
    """
    inputs = {value.name for value in model.graph.input}
    inner = [name for name in names if name not in inputs]
    session = cpu_session(with_outputs(model, inner, instead=True))
    entry = model.graph.input[0].name
    for number, image in enumerate(images[done:], done + 1):
        values = dict(zip(inner, session.run(inner, {entry: image}), strict=True))
        for name in names:
            histograms.setdefault(name, Histogram()).add(values.get(name, image))
        step(number)
