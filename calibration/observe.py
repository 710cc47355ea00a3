"""Histograms of the tensors of a graph on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from deblur_export.calibration.histogram import Histogram
from deblur_export.export.graph import with_outputs

Images = NDArray[np.float32]


def cpu_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU; waiting threads do not spin."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def observe(
    model: onnx.ModelProto,
    names: Sequence[str],
    images: Sequence[Images],
    histograms: dict[str, Histogram],
    done: int,
    step: Callable[[int], None],
) -> None:
    """Add the tensors `names` to their histograms, image after image.

    Args:
        model: float32, with one input.
        images: each [N, 3, H, W].
        histograms: filled in place.
        done: so many of the images are in them already.
        step: called after each image with the number done.
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
