"""The high-pass half of FSNet's decoupler, which AIBNet uses.

A k x k low-pass filter is predicted from the mean of the features for each of eight channel groups,
and its output is subtracted (Cui et al., "Image Restoration via Frequency Selection", 2024; layer
names are those of the official code, class `dynamic_filter`). FSNet's modulator, which recombines
the two halves, is not part of AIBNet.
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.models.blocks.naf import GlobalAveragePool
from deblur_export.plugins.ops.dynamic_filter import DYNAMIC_FILTER, KERNELS

GROUPS = 8


class GroupFilter(nn.Module):
    """Filters each channel group of each image with its own k x k kernel; the border is reflected.

    Args:
        channels: C, a multiple of 8.
        kernel_size: k, 3 or 5.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """x [N, C, H, W], logits [N, 8 k*k, 1, 1] (softmax over k*k) -> [N, C, H, W]."""
        channels, taps = self.channels, self.kernel_size**2
        weight = logits.view(-1, GROUPS, 1, taps).softmax(dim=-1)
        weight = weight.expand(-1, -1, channels // GROUPS, -1).reshape(-1, channels, taps)
        return DYNAMIC_FILTER[self.kernel_size](x, weight, group=channels)  # type: ignore[no-any-return]


class Decoupler(nn.Module):
    """The high frequencies of the features: x minus its dynamic low-pass.

    Args:
        channels: a multiple of 8.
        kernel_size: 3 or 5.

    Raises:
        ValueError: the channels or the kernel size are not supported.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        if channels % GROUPS or kernel_size not in KERNELS:
            raise ValueError(
                f"channels {channels} and kernel size {kernel_size}: the decoupler needs a "
                f"multiple of {GROUPS} channels and a kernel of 3 or 5"
            )
        taps = GROUPS * kernel_size**2
        self.pool = GlobalAveragePool()
        self.conv = nn.Conv2d(channels, taps, 1, bias=False)
        self.bn = nn.BatchNorm2d(taps)
        self.low = GroupFilter(channels, kernel_size)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W].

        Raises:
            ValueError: in training mode, N is 1.
        """
        if self.training and x.shape[0] == 1:
            raise ValueError(
                "the batch norm of the decoupler has one value per channel and image: "
                "a training batch needs at least two images"
            )
        return x - self.low(x, self.bn(self.conv(self.pool(x))))  # type: ignore[no-any-return]
