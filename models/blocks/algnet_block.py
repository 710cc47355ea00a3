"""The blocks of ALGNet (Gao and Dang 2024, arXiv:2403.20106).

Names, shapes and arithmetic are those of the official code where it differs from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.models.blocks.foldable import Foldable
from deblur_export.models.blocks.mamba import Mamba
from deblur_export.models.blocks.naf import (
    GlobalAveragePool,
    LayerNorm2d,
    SimpleGate,
    add_scaled,
)


class InstanceNorm2d(nn.Module):
    """Normalization of each channel over the image, with biased variance and affine parameters.

    This is `nn.InstanceNorm2d` in two steps, mean and mean of the centred squares, both along rows
    first (see `GlobalAveragePool`), which stays accurate in float32 for large images. For an image
    of one pixel it returns `bias`.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.pool = GlobalAveragePool()
        self.weight = Parameter(torch.ones(channels))
        self.bias = Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        centred: Tensor = x - self.pool(x)
        variance: Tensor = self.pool(centred.square())
        scale = self.weight.view(-1, 1, 1) * torch.rsqrt(variance + self.eps)
        return centred * scale + self.bias.view(-1, 1, 1)


class ConvGELU(nn.Module):
    """A convolution that preserves the size, followed by GELU unless it is the last one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, last: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.main = nn.Sequential(conv) if last else nn.Sequential(conv, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)  # type: ignore[no-any-return]


class ShallowFeatures(nn.Module):
    """Features of a reduced image (SFE): [N, 3, H, W] -> [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.main = nn.Sequential(
            ConvGELU(3, quarter, 3),
            ConvGELU(quarter, half, 1),
            ConvGELU(half, half, 3),
            ConvGELU(half, channels, 1, last=True),
            InstanceNorm2d(channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.main(image)  # type: ignore[no-any-return]


class FeatureMerge(nn.Module):
    """Merges two feature maps (FAM): two [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.merge(torch.cat([x, other], dim=1))  # type: ignore[no-any-return]


class GlobalLayer(nn.Module):
    """Layer normalization (eps 1e-5), then Mamba along the pixels in row-major order."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mamba = Mamba(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]; a pixel depends on those above and to its left."""
        pixels = self.norm(x.flatten(2).transpose(1, 2))
        return self.mamba(pixels.transpose(1, 2)).view(x.shape)  # type: ignore[no-any-return]


class LocalLayer(nn.Module):
    """Channel attention, then a 1x1 convolution; `window` as in `GlobalAveragePool`."""

    def __init__(self, channels: int, window: int | None = None) -> None:
        super().__init__()
        self.ap = GlobalAveragePool(window)
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return self.conv2(x * self.conv1(self.ap(x)))  # type: ignore[no-any-return]


class ALGBlock(Foldable):
    """Gated depth-wise features, aggregated globally and locally, then a gated 1x1 half.

    The aggregation is g (1 + inside_all) lamb_g + l lamb_l with per-channel weights; the paper
    writes F_G + W F_L. `beta` scales the second half. `conv3_2` and `gamma` are in the official
    checkpoints, but are never used. Scales are None after folding.
    """

    layer_norms: ClassVar[Sequence[tuple[str, ...]]] = (
        ("norm1", "conv1"),
        ("norm2", "conv4"),
        ("g_layer.norm", "g_layer.mamba.in_proj"),
    )
    residual_scales: ClassVar[Sequence[tuple[str, str]]] = (
        ("lamb_l", "l_layer.conv2"),
        ("beta", "conv5"),
    )

    beta: Parameter | None
    inside_all: Parameter | None
    lamb_g: Parameter | None
    lamb_l: Parameter | None

    def __init__(self, channels: int, window: int | None = None) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.sg = SimpleGate()
        self.g_layer = GlobalLayer(channels)
        self.l_layer = LocalLayer(channels, window)
        self.conv3_2 = nn.Conv2d(wide, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.gamma = Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = Parameter(torch.zeros(1, channels, 1, 1))
        self.inside_all = Parameter(torch.zeros(channels, 1, 1))
        self.lamb_g = Parameter(torch.zeros(channels))
        self.lamb_l = Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y = self.sg(self.conv2(self.conv1(self.norm1(x))))
        x = add_scaled(x, self.g_layer(y), self.global_scale())
        x = add_scaled(x, self.l_layer(y), column(self.lamb_l))
        return add_scaled(x, self.conv5(self.sg(self.conv4(self.norm2(x)))), self.beta)

    def global_scale(self) -> Tensor | None:
        """(1 + inside_all) lamb_g, [C, 1, 1]."""
        if self.inside_all is None or self.lamb_g is None:
            return None
        return (1 + self.inside_all) * self.lamb_g.view(-1, 1, 1)


def column(scale: Parameter | None) -> Tensor | None:
    """[C] -> [C, 1, 1]."""
    return None if scale is None else scale.view(-1, 1, 1)
