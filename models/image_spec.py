"""What images a network maps to what images: channels, scale, and the sizes that it accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Padding = Literal["zeros", "reflect"]
CHANNELS = (1, 3, 4)  # grey, RGB, RGB and alpha
SCALES = (1, 2, 3, 4, 8)


@dataclass(frozen=True)
class ImageSpec:
    """A network maps an image, float32 [N, `channels`, H, W] in 0..1, to a restored one [N,
    `channels`, `scale` H, `scale` W].

    Attributes:
        multiple: height and width are padded (right, bottom) to multiples of this, in pixels.
        padding: how they are padded.
        field: radius of the receptive field in pixels of the input, or None if an output pixel
            depends on the whole image.
        channels: one of `CHANNELS`.
        scale: how much higher and wider the output is, one of `SCALES`.
        minimum: smallest padded side in pixels; smaller images are padded up to it.
        square: whether the padded height and width must be equal.
        period: origins of tiles are multiples of this, in pixels; None for `multiple`.

    Raises:
        ValueError: channels, scale or padding are others, or a length is below 1.
    """

    multiple: int
    padding: Padding = "zeros"
    field: int | None = None
    channels: int = 3
    scale: int = 1
    minimum: int = 1
    square: bool = False
    period: int | None = None

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS:
            raise ValueError(f"{self.channels} channels are none of {CHANNELS}")
        if self.scale not in SCALES:
            raise ValueError(f"scale {self.scale} is none of {SCALES}")
        if self.padding not in ("zeros", "reflect"):
            raise ValueError(f"padding {self.padding!r} is neither zeros nor reflect")
        if min(self.multiple, self.minimum, self.tile_period) < 1 or (self.field or 0) < 0:
            raise ValueError("multiple, minimum, period or field is too small")

    @property
    def tile_period(self) -> int:
        """Origins of tiles are multiples of this, in pixels."""
        return self.multiple if self.period is None else self.period

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of this size is padded to, in pixels."""
        sides = [
            max(-(-side // self.multiple), -(-self.minimum // self.multiple)) * self.multiple
            for side in (height, width)
        ]
        return (max(sides), max(sides)) if self.square else (sides[0], sides[1])

    def known(self) -> Mapping[str, Any]:
        """The fields by the names that `inspect` and the manifest's facts use."""
        return {
            "channels": self.channels,
            "scale": self.scale,
            "multiple": self.multiple,
            "minimum": self.minimum,
            "square": self.square,
            "padding": self.padding,
            "field": self.field,
            "period": self.tile_period,
        }
