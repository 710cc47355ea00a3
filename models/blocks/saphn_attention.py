"""The attention of SAPHN, with linear cost in the number of pixels (Suin et al. 2020, Sec. 3.3).

    Y = M_c * [(M_s * X) Q^T] P,   Q = softmax over the pixels,   P = softmax over C2 = C / 8

The bracket summarises the image in C2 vectors, of which each pixel computes a weighted sum. In
cross attention the values X are another feature, and the four maps are computed from the current
one. The symbols are those of the paper. (The bias of Q's convolution cancels in its softmax.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.naf import GlobalAveragePool

REDUCTION = 8


class Siblings(nn.Module):
    """Named 3x3 convolutions of the same input. After `merge` they are a single convolution.

    Args:
        channels: number of input channels.
        outputs: number of output channels by name.
    """

    merged: nn.Conv2d | None

    def __init__(self, channels: int, outputs: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = tuple(outputs.values())
        self.names = tuple(outputs)
        self.merged = None
        for name, count in outputs.items():
            self.add_module(name, nn.Conv2d(channels, count, 3, padding=1))

    @property
    def is_merged(self) -> bool:
        return self.merged is not None

    @property
    def convs(self) -> Sequence[nn.Conv2d]:
        return [getattr(self, name) for name in self.names]

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """[N, C, H, W] -> [N, outputs, H, W] for each name, in order."""
        if self.merged is not None:
            return self.merged(x).split(self.sizes, dim=1)  # type: ignore[no-any-return]
        return [conv(x) for conv in self.convs]

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Weight [sum of outputs, C, 3, 3] and bias of the merged convolution."""
        weight = torch.cat([conv.weight for conv in self.convs])
        return weight, torch.cat([conv.bias for conv in self.convs if conv.bias is not None])

    def merge(self) -> None:
        """Replace the convolutions by a single one, for inference."""
        weight, bias = self.stacked()
        self.drop()
        self.merged = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        self.merged.weight = nn.Parameter(weight.detach())
        self.merged.bias = nn.Parameter(bias.detach())

    def drop(self) -> None:
        """Remove the individual convolutions."""
        for name in self.names:
            delattr(self, name)


class Attention(nn.Module):
    """SAPHN's attention: `context` computes Q and M_s, `mc` computes M_c, and `maps` computes P and
    the additional maps of subclasses."""

    maps_class: type[Siblings] = Siblings

    def __init__(self, channels: int, extra: Mapping[str, int] | None = None) -> None:
        super().__init__()
        inner = channels // REDUCTION
        self.context = Siblings(channels, {"q": inner, "ms": 1})
        self.pool = GlobalAveragePool()
        self.mc = nn.Conv2d(channels, channels, 1)
        self.maps = self.maps_class(channels, {"p": inner} | dict(extra or {}))

    def forward(self, x: Tensor, values: Tensor) -> Tensor:
        """x [N, C, H, W], from which the maps are computed, and values [N, C, H, W] ->
        [N, C, H, W]."""
        (p,) = self.maps(x)
        return mixed(self.summary(x, values), p)

    def summary(self, x: Tensor, values: Tensor) -> Tensor:
        """M_c * [(M_s * values) Q^T], [N, C, C2].

        The softmax over all pixels is divided by its sum after the product, because its entries are
        about 1 / HW, which underflows in FP16. Both sums are computed along rows first: in a single
        product over all pixels torch sums sequentially, with a relative error of 3e-4 at 512x512.
        """
        q, ms = self.context(x)
        weights = (q - q.amax(dim=(2, 3), keepdim=True)).exp()
        total = weights.sum(dim=3).sum(dim=2)
        rows = (ms.sigmoid() * values).transpose(1, 2)  # [N, H, C, W]
        summed = (rows @ weights.permute(0, 2, 3, 1)).sum(dim=1)
        return summed / total.unsqueeze(1) * self.mc(self.pool(x)).sigmoid().flatten(2)  # type: ignore[no-any-return]


def mixed(summary: Tensor, p: Tensor) -> Tensor:
    """Summary [N, C, C2] and scores P [N, C2, H, W] before the softmax -> [N, C, H, W]."""
    n, _, height, width = p.shape
    return (summary @ p.softmax(dim=1).flatten(2)).view(n, summary.shape[1], height, width)
