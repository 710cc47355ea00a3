"""Networks of a few lines with one trap each for whoever turns them into a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Convolution(nn.Module):
    """No trap: one 3x3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result

    def forward_padded(self, x: Tensor) -> Tensor:
        return self.forward(x)


class WindowReverse(Convolution):
    """Reads the batch from the number of windows by a float division, as Swin's code does."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        windows = x.view(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 8, 8, c)
        batch = int(windows.shape[0] / (h * w / 8 / 8))
        image = windows.view(batch, h // 8, w // 8, 8, 8, -1).permute(0, 5, 1, 3, 2, 4)
        return super().forward(image.reshape(batch, c, h, w))


class IntHalf(Convolution):
    """int(H / 2) is a Python number, where H // 2 would follow the size."""

    def forward(self, x: Tensor) -> Tensor:
        half = int(x.size(2) / 2)
        return torch.cat([super().forward(x[:, :, :half]), super().forward(x[:, :, half:])], 2)


class Square(Convolution):
    """Takes the square root of the number of pixels for the width."""

    def forward(self, x: Tensor) -> Tensor:
        side = int((x.shape[2] * x.shape[3]) ** 0.5)
        return super().forward(x.flatten(2).reshape(*x.shape[:2], side, side))


class TwentyPixels(Convolution):
    """Needs at least 20 pixels a side."""

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 20:
            raise ValueError("too small")
        return super().forward(x)


class OtherForOne(Convolution):
    """Computes something else for a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if x.shape[0] == 1 else 1)


class Decides(Convolution):
    """Takes another path for bright images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.mean() > 0.5 else x


class Remembers(nn.Module):
    """Its pooling keeps the mean of the first image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Convolution()
        self.pool = Memory()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pool(self.body(x))
        return result


class Memory(nn.Module):
    mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = x.mean()
        return x - self.mean


class Noise(nn.Module):
    """Dropout that is on in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Convolution()
        self.noise = AlwaysDropout()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.noise(self.body(x))
        return result


class AlwaysDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class WritesInput(Convolution):
    """Scales its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        x *= 2
        return super().forward(x)


class Infinite(Convolution):
    """The logarithm of a negative number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 2).log())


class Pair(Convolution):
    """Returns a list of two scales."""

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        return [x[..., ::2, ::2], super().forward(x)]


class Fails(Convolution):
    """Cannot run at all."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))
