"""The content-aware module of SAPHN and the residual block around it (Suin et al. 2020, Sec. 3.3).

Pixel-dependent filtering (PDF), with a kernel V and offsets D for each pixel and shared weights W:

    Y_dyn[p] = sum_k V_k[p] W_k X[p + k + D_k[p]],   k over 5x5

(Eq. 17 of arXiv:2402.06117. The shapes in Eq. 18 suggest a depth-wise W, with which the network
would have a third of its published parameters. Here W is dense, and V and D are shared by all
channels.) A map m interpolates between attention
and PDF. The paper bounds the offsets, but does not give the bound: here it is 4 pixels, by tanh.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.models.blocks.saphn_attention import Attention, mixed
from deblur_export.plugins.ops.deform_conv2d import deform_conv2d

KERNEL = 5
TAPS = KERNEL * KERNEL
BOUND = 4.0  # largest offset in pixels


class ContentAware(Attention):
    """Y = m * Y_att + (1 - m) * Y_dyn. `weight` [C, C, 5, 5] and `bias` [C] are W."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, {"offset": 2 * TAPS, "kernel": TAPS, "fusion": 1})
        self.weight = Parameter(Tensor(channels, channels, KERNEL, KERNEL))
        self.bias = Parameter(Tensor(channels).fill_(0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """[N, C, H, W] -> [N, C, H, W]."""
        p, offset, kernel, fusion = self.maps(x)
        attended = mixed(self.summary(x, x), p)
        filtered = deform_conv2d(
            x, BOUND * offset.tanh(), self.weight, self.bias, kernel, kernel=KERNEL
        )
        return filtered + fusion.sigmoid() * (attended - filtered)  # type: ignore[no-any-return]


class ResBlock(nn.Module):
    """x + content(ReLU(conv x)): every residual block has one content-aware module (Fig. 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.content = ContentAware(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return x + self.content(F.relu(self.conv(x)))  # type: ignore[no-any-return]
