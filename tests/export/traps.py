"""Networks of a few lines with one trap each for whoever turns them into a graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from deblur_export.models.checkpoint import LoadedModel, fingerprint
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.spec import ModelSpec


def loaded(net: nn.Module, images: ImageSpec) -> LoadedModel:
    """A network of these as the exporter takes it."""
    spec = ModelSpec(
        name="toy",
        title="Toy",
        source="a test",
        build=type(net),
        variants={"tiny": {}},
        keys_present=(),
        keys_absent=(),
        hyperparameters=lambda state: {},
        images=images,
    )
    return LoadedModel(spec, "tiny", {}, net.eval(), "toy.pth", fingerprint(net.state_dict()))


class Convolution(nn.Module):
    """No trap: one 3x3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result

    def forward_padded(self, x: Tensor) -> Tensor:
        return type(self).forward(self, x)  # the exporter replaces the forward of the instance


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


class Reflects(Convolution):
    """Pads by reflection, which a side of three pixels is too small for."""

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (3, 3, 3, 3), mode="reflect")
        return super().forward(padded)[..., 3:-3, 3:-3]


class Floats(Convolution):
    """Computes in float32 whatever it is given, as code for mixed precision does, and folds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.full((1, 3, 1, 1), 1 / 3, dtype=torch.float32) + torch.zeros(3, 1, 1)
        x = self.norm(super().forward(x.float()))
        result: Tensor = self.last(x.to(torch.float32) * scale.type(torch.float32))
        return result


class Halves(Floats):
    """Rounds to bfloat16 on the way."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.bfloat16())


class AtNumpy(Floats):
    """Leaves torch, for a float32 that cannot be widened."""

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.from_numpy(np.full((3, 3, 1, 1), 1 / 3, np.float32))
        return nn.functional.conv2d(super().forward(x), scale)


class InPlace(nn.Module):
    """Its ReLU writes into the output of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.act(self.conv(x))) + x
        return result

    def forward_padded(self, x: Tensor) -> Tensor:
        return type(self).forward(self, x)  # the exporter replaces the forward of the instance


class OneImage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] == 1
        return x


class OneAtATime(Floats):
    """Takes no batches."""

    def __init__(self) -> None:
        super().__init__()
        self.check = OneImage()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.check(x))


class Mask(Convolution):
    """A layer called `mask` that decides nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(torch.tanh(self.mask(super().forward(x))))
        return result


class Gate(nn.Module):
    """Keeps, for another layer, a map of the shape of its output and later than it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        result = torch.tanh(result)
        self.map = torch.sigmoid(3 * result)
        return result


class KeepsMap(Convolution):
    """Two layers read what a layer kept."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.gate(x) * x) * self.gate.map
