"""How often a tensor takes which value, over any number of images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError

BINS = 8192
SMALLEST = -126  # power of two: the range of a tensor of zeros


@dataclass
class Histogram:
    """Counts in equal bins over -2**power .. 2**power, and the exact ends.

    Ranges are powers of two and grow by adding neighbouring bins up, so that the order of the
    images does not matter and the result is the same to the bit.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64), repr=False)
    power: int = SMALLEST
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count a tensor of any shape.

        Raises:
            DeblurExportError: a value is infinite or not a number.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise DeblurExportError("a tensor leaves float32 on these images; check the weights")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(int(np.frexp(max(-low, high))[1]))
        places = np.floor(values.ravel() / np.float32(self.width)).astype(np.int64)
        self.counts += np.bincount(places + BINS // 2, minlength=BINS)

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
        """Of a bin."""
        return float(2.0 ** (self.power + 1) / BINS)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each bin, [BINS]."""
        places: NDArray[np.float64] = np.arange(BINS, dtype=np.float64) - (BINS // 2 - 0.5)
        return places * self.width
