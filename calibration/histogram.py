"""Histograms of the values of a tensor over any number of images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError

BINS = 8192
SMALLEST = -126  # exponent of the initial range, which is that of a tensor of zeros


@dataclass
class Histogram:
    """Counts in equal bins over -2**power .. 2**power, and the exact minimum and maximum.

    Ranges are powers of two and grow by adding adjacent bins, so that the result is bit-exact for
    any order of the images.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64), repr=False)
    power: int = SMALLEST
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Add the values of a tensor of any shape.

        Raises:
            DeblurExportError: a value is infinite or NaN.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise DeblurExportError(
                "a tensor exceeds the range of float32 on these images; check the weights"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(int(np.frexp(max(-low, high))[1]))
        bins = np.floor(values.ravel() / np.float32(self.width)).astype(np.int64)
        self.counts += np.bincount(bins + BINS // 2, minlength=BINS)

    def _grow(self, power: int) -> None:
        while self.power < power:
            if not self.counts.any():
                self.power = power
                return
            inner = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, np.int64)
            self.counts[BINS // 4 : -BINS // 4] = inner
            self.power += 1

    @property
    def width(self) -> float:
        """Width of a bin."""
        return float(2.0 ** (self.power + 1) / BINS)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Centre of each bin, [BINS]."""
        bins: NDArray[np.float64] = np.arange(BINS, dtype=np.float64) - (BINS // 2 - 0.5)
        return bins * self.width
