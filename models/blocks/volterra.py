"""The Volterra block of DHNet: NAFNet's block with a second-order filter in place of its gate.

A reconstruction: the available text of the paper lacks its equations (see `models/dhnet.py`), and
no code is public. The filter is the rank-Q form of MR-VNet (Roheda, Unde, Rashid, CVPR 2024, "Media
Restoration using Volterra Networks"): a linear convolution plus Q products of two convolutions.
A second convolution in the linear branch, as Sec. 3.3 can be read, is weighed in `models/dhnet.py`.
The rest of the block, including its two residual scales, is NAFNet's; the scales are 0.07 % of
the parameters, too few for a published figure to confirm or refute them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.naf import NAFBlock, SimpleGate, add_scaled


class VolterraFilter(nn.Module):
    """W1*x + sum over q of (Wa_q*x)(Wb_q*x), where every W is a 3x3 convolution of two channels.

    For inference all 2Q + 1 convolutions can be merged: `w1` then computes, for each output
    channel, its linear term, the Q factors of Wa and those of Wb, in this order, and `wa` and `wb`
    are empty.

    The products are the first values to exceed the range of FP16, so they and their sum must be
    computed in FP32.

    Args:
        channels: C, half the number of input channels.
        rank: Q, at least 1.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.w1 = pair_conv(channels)
        self.wa = nn.ModuleList(pair_conv(channels) for _ in range(rank))
        self.wb = nn.ModuleList(pair_conv(channels) for _ in range(rank))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2C, H, W] -> [N, C, H, W]."""
        if not self.wa:
            batch, channels, height, width = x.shape
            terms = self.w1(x).view(batch, channels // 2, -1, height, width)
            linear, first, second = torch.split(terms, [1, self.rank, self.rank], dim=2)
            return linear.squeeze(2) + (first * second).sum(dim=2)
        y = self.w1(x)
        for wa, wb in zip(self.wa, self.wb, strict=True):
            y = y + wa(x) * wb(x)
        return y  # type: ignore[no-any-return]


def pair_conv(channels: int) -> nn.Conv2d:
    """A 3x3 convolution from 2C to C channels; output channel c reads channels 2c and 2c + 1."""
    return nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels)


class VBlock(NAFBlock):
    """A Volterra filter with channel attention, then NAFNet's gated 1x1 half.

    With rank 0 it is NAFNet's block, as in the paper's ablation.
    """

    def __init__(self, channels: int, window: int | None = None, rank: int = 4) -> None:
        super().__init__(channels, window)
        self.volterra = VolterraFilter(channels, rank) if rank else SimpleGate()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        x = self.attend(x, self.volterra(self.conv2(self.conv1(self.norm1(x)))))
        return add_scaled(x, self.conv5(self.gate(self.conv4(self.norm2(x)))), self.gamma)
