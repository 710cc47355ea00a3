"""Cases of DynamicFilter3 and DynamicFilter5."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from deblur_export.plugins.ops.dynamic_filter import DYNAMIC_FILTER
from tests.plugins.harness import Case, Inputs, rand, rounded


def filtered(n: int, c: int, h: int, w: int, kernel: int, scale: float) -> Callable[..., Inputs]:
    def make(dtype: torch.dtype) -> Inputs:
        tensors = {
            "x": rand(n, c, h, w, scale=scale),
            "weight": rand(n, c, kernel * kernel),
        }
        return rounded(tensors, dtype) | {"group": c}

    return make


def shifted_copies(x: Tensor, weight: Tensor, group: int) -> Tensor:
    """The definition: numpy's mirrored image, one shifted copy per tap."""
    h, w = x.shape[2:]
    kernel = round(weight.shape[-1] ** 0.5)
    r = kernel // 2
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (r, r), (r, r)), "reflect"))
    y = torch.zeros_like(x)
    for tap in range(kernel * kernel):
        dy, dx = divmod(tap, kernel)
        y += weight[:, :, tap, None, None] * padded[:, :, dy : dy + h, dx : dx + w]
    return y


CASES = [
    Case(
        f"DynamicFilter{kernel}",
        f"{n}x{c}x{h}x{w}-scale-{scale:g}",
        filtered(n, c, h, w, kernel, scale),
        DYNAMIC_FILTER[kernel],
        shifted_copies,
        float32={"rtol": 2e-5, "atol": 2e-5 * scale},
    )
    for n, c, h, w, kernel, scale in (
        (2, 3, 7, 11, 5, 1),
        (2, 3, 7, 11, 3, 1),
        (1, 8, 2, 2, 5, 1),
        (1, 4, 1, 1, 5, 1),
        (3, 1, 1, 6, 5, 1),
        (1, 2, 9, 1, 3, 1),
        (1, 2, 8, 8, 5, 1e6),
    )
]
