"""Cases of LocalMean."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from deblur_export.plugins.ops.local_mean import local_mean
from tests.plugins.harness import Case, Inputs, rand, rounded


def pooled(n: int, c: int, h: int, w: int, kernel: int) -> Callable[..., Inputs]:
    return lambda dtype: rounded({"x": 3 + rand(n, c, h, w)}, dtype) | {"kernel": kernel}


def cumulative_sums(x: Tensor, kernel: int) -> Tensor:
    """TLC as published: differences of a summed-area table, border repeated."""
    h, w = x.shape[2:]
    if kernel >= h and kernel >= w:
        return x.mean((2, 3), keepdim=True).expand_as(x)
    kh, kw = min(kernel, h), min(kernel, w)
    table = F.pad(x.cumsum(3).cumsum(2), (1, 0, 1, 0))
    above, below = table[:, :, :-kh], table[:, :, kh:]
    total = below[..., kw:] - below[..., :-kw] - above[..., kw:] + above[..., :-kw]
    down, right = h - total.shape[2], w - total.shape[3]
    border = (right // 2, (right + 1) // 2, down // 2, (down + 1) // 2)
    return F.pad(total / (kh * kw), border, mode="replicate")


CASES = [
    Case(
        "LocalMean",
        f"{h}x{w}-window-{kernel}",
        pooled(n, 2, h, w, kernel),
        local_mean,
        cumulative_sums,
    )
    for n, h, w, kernel in (
        (2, 11, 14, 3),
        (1, 13, 30, 12),
        (2, 24, 24, 24),
        (1, 25, 23, 24),
        (1, 9, 60, 48),
        (1, 60, 9, 48),
        (1, 1, 1, 384),
        (1, 1, 40, 24),
        (1, 390, 7, 384),
        (1, 385, 401, 384),
    )
]
