"""Calibrators: from how a tensor is distributed to the range that eight bits shall cover.

What lies outside saturates, what lies inside is rounded the finer the smaller the range. A clip
`c` stands for the range max(low, -c) .. min(high, c), so that a short side is never clipped for
the sake of a long one.
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
CLIPS = np.linspace(1.0, 0.1, 91)  # of the largest magnitude, tried by entropy and mse
Limits = tuple[float, float]


def limits(histogram: Histogram, method: Method, symmetric: bool) -> Limits:
    """The range to quantize, which holds 0.

    minmax: everything. percentile: without the outermost 0.01 %. mse: least mean squared error of
    clipping and rounding. entropy: least Kullback-Leibler divergence of the rounded distribution
    from the true one (Migacz, "8-bit inference with TensorRT", GTC 2017).

    Args:
        histogram: of at least one value.
        method: see above.
        symmetric: the range will be -c .. c in 254 steps; else 255 steps between its ends.
    """
    low, high = METHOD[method](histogram, symmetric)
    low, high = min(low, 0.0), max(high, 0.0)
    largest = max(-low, high)
    return (-largest, largest) if symmetric else (low, high)


def _minmax(histogram: Histogram, symmetric: bool) -> Limits:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, symmetric: bool) -> Limits:
    total = int(histogram.counts.sum())
    outside = (1 - PERCENTILE / 100) * total
    if symmetric:
        folded = histogram.counts[::-1] + histogram.counts
        inside = np.cumsum(folded[len(folded) // 2 :])
        clip = histogram.width * (1 + int(np.searchsorted(inside, total - outside)))
        return max(histogram.low, -clip), min(histogram.high, clip)
    below = np.cumsum(histogram.counts)
    first = int(np.searchsorted(below, outside / 2, side="right"))
    last = int(np.searchsorted(below, total - outside / 2))
    edge, width = histogram.centres - histogram.width / 2, histogram.width
    return max(histogram.low, float(edge[first])), min(histogram.high, float(edge[last]) + width)


def _least(
    cost: Callable[[Histogram, Limits, float], float],
) -> Callable[[Histogram, bool], Limits]:
    """The clip of least cost; the larger one of two equal ones."""

    def choose(histogram: Histogram, symmetric: bool) -> Limits:
        whole = min(histogram.low, 0.0), max(histogram.high, 0.0)
        best, least = whole, np.inf
        if whole == (0.0, 0.0):
            return whole
        for clip in CLIPS * max(np.abs(whole)):
            low, high = max(whole[0], -clip), min(whole[1], clip)
            step = 2 * max(-low, high) / 254 if symmetric else (high - low) / 255
            paid = cost(histogram, (low, high), step)
            if paid < least:
                best, least = (low, high), paid
        return best

    return choose


def _squared_error(histogram: Histogram, inside: Limits, step: float) -> float:
    """Sum over all values; bins are narrower than steps, so that their centres stand for them."""
    centres, ends = histogram.centres, np.rint(np.array(inside) / step)
    rounded = step * np.clip(np.rint(centres / step), *ends)
    return float(np.square(centres - rounded) @ histogram.counts)


def _divergence(histogram: Histogram, inside: Limits, step: float) -> float:
    """Kullback-Leibler divergence in nats, of what rounding makes of the inside from all."""
    centres, (low, high) = histogram.centres, inside
    first, last = np.searchsorted(centres, (low, high))
    last = max(last, first + 1)
    kept = histogram.counts[first:last].astype(np.float64)
    true = kept.copy()
    true[0] += histogram.counts[:first].sum()
    true[-1] += histogram.counts[last:].sum()
    return _kl(true, _spread(kept, np.rint(centres[first:last] / step).astype(np.int64)))


def _spread(counts: NDArray[np.float64], levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts of each level, shared evenly by those of its bins that hold any."""
    levels = levels - levels.min()
    filled = counts > 0
    sums, bins = np.bincount(levels, counts), np.bincount(levels, filled)
    return np.where(filled, sums[levels] / np.maximum(bins[levels], 1), 0.0)


def _kl(true: NDArray[np.float64], approximate: NDArray[np.float64]) -> float:
    seen = true > 0
    p, q = true[seen] / true.sum(), approximate[seen]
    if not q.sum():
        return float("inf")
    # A saturated end may have no bin of its own: smoothed by less than one value.
    q = np.maximum(q / q.sum(), 0.5 / true.sum())
    return float(p @ np.log(p / q))


METHOD: Mapping[Method, Callable[[Histogram, bool], Limits]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _least(_divergence),
    "mse": _least(_squared_error),
}
