"""Networks of users, a few lines each, with what a probe has to find out."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Plain(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, width: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.relu(self.first(x)))


class Strided(Plain):
    """Halves the size twice and doubles it twice: odd sizes do not fit."""

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(F.avg_pool2d(self.first(x), 2), 2)
        return x + self.last(F.interpolate(small, scale_factor=4))


class WritesOver(Plain):
    """Writes over what a gradient needs; an empty parameter takes part in nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.empty(0, 3))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.sigmoid(self.first(x))
        inner[:, :2] = inner[:, :2] * 3
        return x + self.last(inner)


class PadsItself(Strided):
    """Pads to multiples of 4 by itself, with zeros or by reflection."""

    def __init__(self, mode: str = "constant") -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % 4, 0, -height % 4), mode=self.mode)
        return super().forward(x)[:, :, :height, :width]


class Scales(Plain):
    """Gives a quarter-size, a half-size and two whole images, one of which sees fewer weights."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        part = x + F.pad(self.first(x)[:, :3], (0, 0))
        whole = super().forward(x)
        return {"small": [F.avg_pool2d(whole, 4), F.avg_pool2d(whole, 2)], "a": part, "b": whole}


class Twice(Plain):
    """Enlarges by two."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(super().forward(x), scale_factor=2)


class SquareOnly(Plain):
    """Takes the width from the number of pixels."""

    def forward(self, x: Tensor) -> Tensor:
        side = int(math.sqrt(x.shape[2] * x.shape[3]))
        return super().forward(x.flatten(2).view(x.shape[0], x.shape[1], side, side))


class AtLeast24(Plain):
    """Reflects 20 pixels around the image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (20, 20, 20, 20), mode="reflect"))[:, :, 20:-20, 20:-20]


class Whole(Plain):
    """Pools over the image behind a scale that is zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.gamma * x.mean((2, 3), keepdim=True)


class DeadGate(Plain):
    """Pools over the image behind a ReLU that no gradient passes with these weights."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * (1 + F.relu(y.mean((2, 3), keepdim=True) - 1000))


class Tanh(Plain):
    """Works on BGR images in -1..1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


class OneSize(nn.Module):
    """Has a weight for each pixel."""

    def __init__(self, side: int = 48) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, side, side))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Labels(Plain):
    """A classifier."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3))


def make(width: int, deep: bool = False) -> nn.Module:
    """A callable that is no class."""
    return nn.Sequential(Plain(width), Plain(width)) if deep else Plain(width)


def fails() -> nn.Module:
    raise RuntimeError("the licence server\nis away")


def number() -> int:
    return 3


def half() -> nn.Module:
    return Plain().half()


READY = Plain(3)
