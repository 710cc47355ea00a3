"""Calibrators: choose the clipping range of a tensor for eight bits from its histogram.

Values outside the range saturate; values inside are rounded more finely the smaller the range is. A
threshold `c` stands for the range max(low, -c) .. min(high, c), so that the shorter side of an
asymmetric distribution is not clipped unnecessarily.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deblur_export.calibration.histogram import Histogram

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
PERCENTILE = 99.99
THRESHOLDS = np.linspace(1.0, 0.1, 91)  # fractions of the largest magnitude, for entropy and mse
Range = tuple[float, float]


def clipping_range(histogram: Histogram, method: Method, symmetric: bool) -> Range:
    """Choose the clipping range of a tensor.

    Args:
        histogram: of at least one value.
        method: "minmax" covers all values; "percentile" leaves out the outermost 0.01 %; "mse"
            minimises the mean squared error of clipping and rounding; "entropy" minimises the
            Kullback-Leibler divergence of the rounded distribution from the original one (Migacz,
            "8-bit inference with TensorRT", GTC 2017).
        symmetric: the range is -c .. c with 254 steps; otherwise it has 255 steps.

    Returns:
        Lower and upper end; the range contains 0.
    """
    low, high = METHOD[method](histogram, symmetric)
    low, high = min(low, 0.0), max(high, 0.0)
    largest = max(-low, high)
    return (-largest, largest) if symmetric else (low, high)


def _minmax(histogram: Histogram, symmetric: bool) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, symmetric: bool) -> Range:
    total = int(histogram.counts.sum())
    outside = (1 - PERCENTILE / 100) * total
    if symmetric:
        folded = histogram.counts[::-1] + histogram.counts
        inside = np.cumsum(folded[len(folded) // 2 :])
        threshold = histogram.width * (1 + int(np.searchsorted(inside, total - outside)))
        return max(histogram.low, -threshold), min(histogram.high, threshold)
    below = np.cumsum(histogram.counts)
    first = int(np.searchsorted(below, outside / 2, side="right"))
    last = int(np.searchsorted(below, total - outside / 2))
    edge, width = histogram.centres - histogram.width / 2, histogram.width
    return max(histogram.low, float(edge[first])), min(histogram.high, float(edge[last]) + width)


def _minimise(
    cost: Callable[[Histogram, Range, float], float],
) -> Callable[[Histogram, bool], Range]:
    """A calibrator that chooses the threshold of lowest cost, and the larger one of equal ones."""

    def choose(histogram: Histogram, symmetric: bool) -> Range:
        whole = min(histogram.low, 0.0), max(histogram.high, 0.0)
        best, lowest = whole, np.inf
        if whole == (0.0, 0.0):
            return whole
        for threshold in THRESHOLDS * max(np.abs(whole)):
            low, high = max(whole[0], -threshold), min(whole[1], threshold)
            step = 2 * max(-low, high) / 254 if symmetric else (high - low) / 255
            current = cost(histogram, (low, high), step)
            if current < lowest:
                best, lowest = (low, high), current
        return best

    return choose


def _squared_error(histogram: Histogram, inside: Range, step: float) -> float:
    """Sum of squared errors over all values, each represented by the centre of its bin, which is
    narrower than a step."""
    centres, ends = histogram.centres, np.rint(np.array(inside) / step)
    rounded = step * np.clip(np.rint(centres / step), *ends)
    return float(np.square(centres - rounded) @ histogram.counts)


def _divergence(histogram: Histogram, inside: Range, step: float) -> float:
    """Kullback-Leibler divergence, in nats, of the rounded values inside the range from the
    clipped distribution."""
    centres, (low, high) = histogram.centres, inside
    first, last = np.searchsorted(centres, (low, high))
    last = max(last, first + 1)
    counts = histogram.counts[first:last].astype(np.float64)
    clipped = counts.copy()
    clipped[0] += histogram.counts[:first].sum()
    clipped[-1] += histogram.counts[last:].sum()
    return _kl(clipped, _spread(counts, np.rint(centres[first:last] / step).astype(np.int64)))


def _spread(counts: NDArray[np.float64], levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distribute the counts of each level evenly over those of its bins that are not empty."""
    levels = levels - levels.min()
    filled = counts > 0
    sums, bins = np.bincount(levels, counts), np.bincount(levels, filled)
    return np.where(filled, sums[levels] / np.maximum(bins[levels], 1), 0.0)


def _kl(clipped: NDArray[np.float64], rounded: NDArray[np.float64]) -> float:
    filled = clipped > 0
    p, q = clipped[filled] / clipped.sum(), rounded[filled]
    if not q.sum():
        return float("inf")
    # The end that collects clipped values may be empty in q: smoothed by less than one value.
    q = np.maximum(q / q.sum(), 0.5 / clipped.sum())
    return float(p @ np.log(p / q))


METHOD: Mapping[Method, Callable[[Histogram, bool], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _minimise(_divergence),
    "mse": _minimise(_squared_error),
}
