"""Layers shared by the NAFNet family (Chen et al., "Simple Baselines for Image Restoration", 2022).

Parameter names are those of the official code, so that its checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.models.blocks.foldable import Foldable
from deblur_export.plugins.ops.local_mean import WINDOWS, local_mean

LOCAL_SIZES = (32, 64, 128, 256)  # sides of training crops in pixels that TLC supports


class LayerNorm2d(nn.Module):
    """Layer normalization over the channels of each pixel, with biased variance and eps 1e-6.

    It is written as `F.layer_norm` between two permutations so that it becomes one
    LayerNormalization node, whose statistics TensorRT computes in FP32; a decomposed one overflows
    in FP16. `weight` and `bias` ([C]) are None after they are folded into the next convolution.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.weight = Parameter(Tensor(channels).fill_(1))
        self.bias = Parameter(Tensor(channels).fill_(0))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), (self.channels,), self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


def tlc_window(train_size: int | None, level: int) -> int | None:
    """The pooling window of TLC at a level of a U-Net (Chu et al. 2022, arXiv:2112.04491, and the
    official NAFNet code).

    It is 1.5 times the training crop.

    Args:
        train_size: side of the training crops in pixels, or None for global pooling.
        level: 0 at full resolution; each level halves the resolution.

    Returns:
        Side of the window in pixels of that level; None for global pooling.

    Raises:
        ValueError: train_size is not 32, 64, 128 or 256.
    """
    if train_size is None:
        return None
    window = 3 * (train_size // 2) >> level
    if train_size not in LOCAL_SIZES:
        raise ValueError(f"train_size is {train_size}, not one of 32, 64, 128 and 256")
    if window not in WINDOWS:
        raise ValueError(
            f"there is no pooling window of {window} pixels, which level {level} would have"
        )
    return window


class GlobalAveragePool(nn.Module):
    """Mean over the image, [N, C, H, W] -> [N, C, 1, 1], first along rows, then along columns.

    In a single reduction ONNX Runtime sums all H*W values sequentially in float32, with a relative
    error of 1e-4 at 512x512 and more for larger images. Two short reductions have an error near
    1e-7 and keep the partial results in the range of FP16. (`nn.AdaptiveAvgPool2d(1)` exports to
    index arithmetic.)

    With a `window` (see `tlc_window`), it is the mean over the window around each pixel instead:
    [N, C, H, W] -> [N, C, H, W].
    """

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        if self.window is not None:
            return local_mean(x, kernel=self.window)  # type: ignore[no-any-return]
        return x.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)


class SimpleGate(nn.Module):
    """Product of the two channel halves: [N, 2C, H, W] -> [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second


class NAFBlock(Foldable):
    """NAFNet's block: a gated depth-wise half with channel attention, then a gated 1x1 half.

    `beta` and `gamma` ([1, C, 1, 1]) scale the two residual branches and are None after folding.
    """

    layer_norms: ClassVar[Sequence[tuple[str, ...]]] = (("norm1", "conv1"), ("norm2", "conv4"))
    residual_scales: ClassVar[Sequence[tuple[str, str]]] = (("beta", "conv3"), ("gamma", "conv5"))

    beta: Parameter | None
    gamma: Parameter | None

    def __init__(self, channels: int, window: int | None = None) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.gate = SimpleGate()
        self.sca = nn.Sequential(GlobalAveragePool(window), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = Parameter(Tensor(1, channels, 1, 1).fill_(0))
        self.gamma = Parameter(Tensor(1, channels, 1, 1).fill_(0))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y = self.gate(self.conv2(self.conv1(self.norm1(x))))
        x = self.attend(x, y)
        return add_scaled(x, self.conv5(self.gate(self.conv4(self.norm2(x)))), self.gamma)

    def attend(self, x: Tensor, gated: Tensor) -> Tensor:
        """Apply simplified channel attention to the gated features and add the first residual."""
        return add_scaled(x, self.conv3(gated * self.sca(gated)), self.beta)


def add_scaled(x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """x + scale * branch; a scale of None is one that was folded into the branch."""
    return x + branch if scale is None else x + branch * scale
