"""Measure the loss of PSNR by quantization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from deblur_export.calibration.observe import cpu_session
from deblur_export.calibration.search import Score

# The PSNR of a good network on GoPro. Without ground truth, the loss is that of a network with this
# PSNR, assuming that the errors of quantization are uncorrelated with its own.
ASSUMED_PSNR = 33.0
Image = NDArray[np.float32]


class Evaluator:
    """Compares graphs with a float32 graph on images; both run on ONNX Runtime.

    Args:
        model: the float32 graph.
        images: inputs, each [N, C, H, W] in 0..1.
        ground_truth: the sharp images in the shapes of the outputs, or None.
    """

    def __init__(
        self, model: onnx.ModelProto, images: Sequence[Image], ground_truth: Sequence[Image] | None
    ) -> None:
        self.entry = model.graph.input[0].name
        self.images, self.ground_truth = images, ground_truth
        self.reference = self._outputs(model)

    def score(self, model: onnx.ModelProto) -> Score:
        """Evaluate a graph: means over the images, whose outputs are clipped to 0..1."""
        candidate = self._outputs(model)
        pairs = zip(self.reference, candidate, strict=True)
        error = float(np.mean([_mse(a, b) for a, b in pairs]))
        if self.ground_truth is None:
            return Score(10 * math.log10(1 + error * 10 ** (ASSUMED_PSNR / 10)), error)
        return Score(self._mean_psnr(self.reference) - self._mean_psnr(candidate), error)

    def _outputs(self, model: onnx.ModelProto) -> list[Image]:
        session = cpu_session(model)
        runs = (session.run(None, {self.entry: image})[0] for image in self.images)
        return [np.clip(output, 0, 1) for output in runs]

    def _mean_psnr(self, outputs: Sequence[Image]) -> float:
        assert self.ground_truth is not None
        pairs = zip(outputs, self.ground_truth, strict=True)
        return float(np.mean([psnr(_mse(a, b)) for a, b in pairs]))


def psnr(mse: float) -> float:
    """PSNR in dB from the mean squared error of values in 0..1; at most 150."""
    return -10 * math.log10(max(mse, 1e-15))


def _mse(a: Image, b: Image) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())
