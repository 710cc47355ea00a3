"""Cases of PixelGather and PixelScatter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.plugins.ops.pixel_rows import pixel_gather, pixel_scatter
from tests.plugins.harness import Case, Inputs, blob_mask, rand


def listed(n: int, h: int, w: int, coverage: float) -> Tensor:
    return blob_mask(n, h, w, coverage).flatten().nonzero().squeeze(1)


def gather(n: int, c: int, h: int, w: int, coverage: float, kernel: int) -> Callable[..., Any]:
    return lambda dtype: {
        "x": rand(n, c, h, w).float().to(dtype),
        "index": listed(n, h, w, coverage),
        "kernel": kernel,
    }


def scatter(n: int, c: int, h: int, w: int, coverage: float) -> Callable[..., Any]:
    def make(dtype: torch.dtype) -> Inputs:
        index = listed(n, h, w, coverage)
        rows = rand(len(index), c, seed=5).float().to(dtype)
        return {"base": rand(n, c, h, w).float().to(dtype), "index": index, "rows": rows}

    return make


def unfolded_rows(x: Tensor, index: Tensor, kernel: int) -> Tensor:
    columns = F.unfold(x, kernel, padding=kernel // 2)  # [N, C*k*k, H*W], channel-major
    n, _, pixels = columns.shape
    tap_major = columns.view(n, x.shape[1], kernel * kernel, pixels).permute(0, 3, 2, 1)
    return tap_major.reshape(n * pixels, -1)[index]


def assigned_rows(base: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    y = base.clone()
    h, w = y.shape[2:]
    for number, row in zip(index.tolist(), rows, strict=True):
        image, pixel = divmod(number, h * w)
        y[image, :, pixel // w, pixel % w] = row
    return y


CASES = [
    *(
        Case("PixelGather", name, make, pixel_gather, unfolded_rows, rank=2)
        for name, make in (
            ("unfold", gather(2, 3, 6, 7, 0.3, 3)),
            ("rows", gather(2, 3, 6, 7, 0.3, 1)),
            ("all", gather(1, 3, 4, 3, 1.0, 3)),
            ("none", gather(1, 3, 4, 3, 0.0, 3)),
        )
    ),
    *(
        Case("PixelScatter", name, make, pixel_scatter, assigned_rows)
        for name, make in (
            ("some", scatter(2, 3, 6, 7, 0.3)),
            ("none", scatter(1, 3, 4, 5, 0.0)),
            ("all", scatter(1, 3, 4, 5, 1.0)),
        )
    ),
]
