"""A user's network behind the one interface of all networks here: RGB in 0..1, any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.padding import pad_image
from deblur_export.models.image_spec import ImageSpec

Colour = Literal["RGB", "BGR"]
UNIT = (0.0, 1.0)


@dataclass(frozen=True)
class Interface:
    """How a user's network wants its images and gives its result.

    Attributes:
        images: sizes, channels and scale.
        range: of the values that its input has.
        output_range: of the values that it gives.
        colour: the order of its channels.
        output: which of its outputs is the restored image, counted through lists, tuples and
            dicts in their order.

    Raises:
        ValueError: a range is empty, the colour is another, or the output is no number.
    """

    images: ImageSpec
    range: tuple[float, float] = UNIT
    output_range: tuple[float, float] = UNIT
    colour: Colour = "RGB"
    output: int = 0

    def __post_init__(self) -> None:
        for low, high in (self.range, self.output_range):
            if not low < high:
                raise ValueError(f"range {low:g},{high:g}: the first must be the smaller")
        if self.colour not in ("RGB", "BGR"):
            raise ValueError(f"colour {self.colour!r} is neither RGB nor BGR")
        if type(self.output) is not int or self.output < 0:
            raise ValueError(f"output {self.output!r} is not the number of an output")


class Adapter(nn.Module):
    """Maps images [N, C, H, W], RGB in 0..1, by a user's network to restored ones of the same
    kind."""

    def __init__(self, net: nn.Module, interface: Interface) -> None:
        super().__init__()
        self.net = net
        self.interface = interface

    def forward(self, image: Tensor) -> Tensor:
        """[N, C, H, W] in 0..1 of any size to [N, C, scale H, scale W]."""
        images = self.interface.images
        height, width = (side * images.scale for side in image.shape[2:])
        return self.forward_padded(pad_image(image, images))[:, :, :height, :width]

    def forward_padded(self, image: Tensor) -> Tensor:
        """The same for an image of a size that the network accepts."""
        interface = self.interface
        swap = interface.colour == "BGR" and image.shape[1] == 3
        image = scaled(image, UNIT, interface.range)
        result = picked(self.net(image.flip(1) if swap else image), interface.output)
        return scaled(result.flip(1) if swap else result, interface.output_range, UNIT)


def scaled(image: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    """Values of the range `old` in the range `new`, linearly; the same tensor if they are equal."""
    if old == new:
        return image
    factor = (new[1] - new[0]) / (old[1] - old[0])
    return image * factor + (new[0] - old[0] * factor)


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors that a network returned, through lists, tuples and dicts in their order."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        result = list(result.values())
    elif hasattr(result, "__dataclass_fields__"):
        result = list(vars(result).values())
    if isinstance(result, Sequence) and not isinstance(result, str):
        return [tensor for part in result for tensor in tensors_of(part)]
    return []


def picked(result: Any, index: int) -> Tensor:
    """Tensor number `index` of what a network returned.

    Raises:
        IndexError: there are fewer.
    """
    return tensors_of(result)[index]


def finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return bool(torch.isfinite(tensor).all())
