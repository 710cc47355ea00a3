"""Cases of MotionDeformConv."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deblur_export.plugins.ops.motion_deform_conv import motion_deform_conv
from tests.plugins.harness import Case, Inputs, rand, rounded


def deform(
    n: int, c: int, h: int, w: int, offset_scale: float, gate: int = 0
) -> Callable[..., Inputs]:
    def make(dtype: torch.dtype) -> Inputs:
        tensors = {
            "x": rand(n, c, h, w),
            "offset": rand(n, 18, h, w, scale=offset_scale),
            "weight": rand(c, 1, 3, 3),
            "bias": rand(c),
        }
        return rounded(tensors, dtype) | {"group": c, "gate": gate}

    return make


def tent_deform(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, group: int, gate: int = 0
) -> Tensor:
    """The definition: every sample is a sum over all pixels q of x[q] tent(y - qy) tent(x - qx)."""
    n, c, h, w = x.shape
    y = bias.view(1, c, 1, 1).expand(n, c, h, w).clone()
    rows, columns = torch.arange(h).to(x), torch.arange(w).to(x)
    for tap in range(9):
        py = rows.view(h, 1) + tap // 3 - 1 + offset[:, 2 * tap]
        px = columns + tap % 3 - 1 + offset[:, 2 * tap + 1]
        tent_y = (1 - (py[..., None] - rows).abs()).clamp(min=0)  # [N, H, W, H]
        tent_x = (1 - (px[..., None] - columns).abs()).clamp(min=0)  # [N, H, W, W]
        sample = torch.einsum("ncij,nhwi,nhwj->nchw", x, tent_y, tent_x)
        y += sample * weight.view(c, 9)[:, tap].view(1, c, 1, 1)
    return y[:, : c // 2] * y[:, c // 2 :] if gate else y


CASES = [
    Case("MotionDeformConv", name, make, motion_deform_conv, tent_deform)
    for name, make in (
        ("zero-offset", deform(1, 4, 6, 5, 0.0)),
        ("batch-odd", deform(2, 6, 7, 11, 2.5)),
        ("far-outside", deform(1, 3, 5, 4, 40.0)),
        ("one-pixel", deform(2, 2, 1, 1, 1.0)),
        ("one-row", deform(1, 2, 1, 9, 1.0)),
        ("gated", deform(2, 6, 7, 11, 2.5, gate=1)),
    )
]
