"""What quantization does to images, in dB."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from deblur_export.calibration.observe import cpu_session
from deblur_export.calibration.search import Score

# A good network's PSNR on GoPro. Without the truth, the drop is what a network loses that is this
# far from it, if the errors of quantization have nothing to do with its own.
ASSUMED_PSNR = 33.0
Image = NDArray[np.float32]


class Judge:
    """Compares graphs with a float32 graph on images; both run on ONNX Runtime.

    Args:
        model: the float32 graph.
        images: what it reads, each [N, 3, H, W].
        truths: the sharp images, or None.
    """

    def __init__(
        self, model: onnx.ModelProto, images: Sequence[Image], truths: Sequence[Image] | None
    ) -> None:
        self.entry = model.graph.input[0].name
        self.images, self.truths = images, truths
        self.exact = self._outputs(model)

    def score(self, model: onnx.ModelProto) -> Score:
        """Means over the images, as they would be shown (clipped to 0..1)."""
        rounded = self._outputs(model)
        error = float(np.mean([_mse(a, b) for a, b in zip(self.exact, rounded, strict=True)]))
        if self.truths is None:
            return Score(10 * math.log10(1 + error * 10 ** (ASSUMED_PSNR / 10)), error)
        return Score(self._mean_psnr(self.exact) - self._mean_psnr(rounded), error)

    def _outputs(self, model: onnx.ModelProto) -> list[Image]:
        session = cpu_session(model)
        runs = (session.run(None, {self.entry: image})[0] for image in self.images)
        return [np.clip(output, 0, 1) for output in runs]

    def _mean_psnr(self, outputs: Sequence[Image]) -> float:
        assert self.truths is not None
        return float(np.mean([psnr(_mse(a, b)) for a, b in zip(outputs, self.truths, strict=True)]))


def psnr(mse: float) -> float:
    """In dB, of values in 0..1; at most 150."""
    return -10 * math.log10(max(mse, 1e-15))


def _mse(a: Image, b: Image) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())
