"""Small networks of 1, 3 or 4 channels that enlarge images, as loaded models."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models.blocks.padding import pad_image
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.spec import ModelSpec

FIELD = 3  # pixels, of `Shuffling`


class Scaled(nn.Module):
    """What the adapter around a user's network gives: any size, padded inside and cropped."""

    def __init__(self, images: ImageSpec) -> None:
        super().__init__()
        self.images = images

    def forward(self, image: Tensor) -> Tensor:
        height, width = (side * self.images.scale for side in image.shape[2:])
        return self.forward_padded(pad_image(image, self.images))[..., :height, :width]

    def forward_padded(self, image: Tensor) -> Tensor:
        raise NotImplementedError


class Repeating(Scaled):
    """Each pixel becomes scale x scale pixels, plus a convolution of zeros."""

    def __init__(self, images: ImageSpec) -> None:
        super().__init__(images)
        self.conv = nn.Conv2d(images.channels, images.channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward_padded(self, image: Tensor) -> Tensor:
        whole = image + self.conv(image)
        return F.interpolate(whole, scale_factor=float(self.images.scale), mode="nearest")


class Shuffling(Scaled):
    """Three 3x3 convolutions and a pixel shuffle, whose weights are random."""

    def __init__(self, images: ImageSpec) -> None:
        super().__init__(images)
        channels, factor = images.channels, images.scale
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, channels * factor**2, 3, padding=1)

    def forward_padded(self, image: Tensor) -> Tensor:
        features = torch.tanh(self.middle(torch.tanh(self.first(image))))
        return F.pixel_shuffle(self.last(features), self.images.scale)


def scaled_model(kind: type[Scaled], **images: Any) -> LoadedModel:
    """A network of `kind`; the arguments are those of `ImageSpec`."""
    known = ImageSpec(**({"multiple": 1, "field": FIELD} | images))
    spec = ModelSpec(
        name=kind.__name__.lower(),
        title="a test",
        source="a test",
        build=kind,
        variants={"tiny": {}},
        keys_present=(),
        keys_absent=(),
        hyperparameters=lambda state: {},
        images=known,
    )
    torch.manual_seed(0)
    return LoadedModel(spec, "tiny", {}, kind(known).eval(), "random:0", "0" * 64)
