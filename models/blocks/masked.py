"""The masked convolution of M2AENet in its unfolded form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.plugins.ops.pixel_rows import pixel_gather, pixel_scatter

KERNEL = 3


class UnfoldedMaskedConv(nn.Module):
    """Gated dense 3x3 convolution at masked pixels, computed as unfold and 1x1 convolution
    (M2AENet, Sec. 3.2); for inference only.

    `weight` [2C, 9(C+1)] is tap-major. Each tap has an additional input channel, which is one
    inside the image and zero in the padding. `bias` is [2C].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(2 * channels, KERNEL * KERNEL * (channels + 1)).fill_(0))
        self.bias = Parameter(Tensor(2 * channels).fill_(0))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [N, C, H, W], mask [N, 1, H, W] -> [N, C, H, W]: the gate where mask > 0.5, x * x
        elsewhere."""
        index = (mask > 0.5).flatten().nonzero().squeeze(1)
        rows = pixel_gather(torch.cat([x, torch.ones_like(x[:, :1])], dim=1), index, KERNEL)
        first, second = F.linear(rows, self.weight, self.bias).chunk(2, dim=1)
        return pixel_scatter(x * x, index, first * second)  # type: ignore[no-any-return]
