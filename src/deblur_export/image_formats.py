"""The image files that are read and written: one record a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """What one file format can hold.

    `name` is Pillow's, `suffixes` are lower case and begin with the one that is written for
    `--format`. `lossy` tells whether it can be written with a quality. `bits` is the most per
    sample that we write; `alpha` and `grey_profile` say whether it stores transparency and an ICC
    profile of a grey image; `largest_side` is in pixels, `largest_exif` in bytes, None without a
    limit.
    """

    name: str
    suffixes: tuple[str, ...]
    lossy: bool = False
    bits: int = 8
    alpha: bool = True
    grey_profile: bool = True
    largest_side: int | None = None
    largest_exif: int | None = None

    @property
    def option(self) -> str:
        """Its name for `--format`."""
        return self.suffixes[0].removeprefix(".")


FORMATS = (
    ImageFormat("PNG", (".png",), bits=16),
    ImageFormat(
        "JPEG",
        (".jpg", ".jpeg", ".jfif", ".jpe"),
        lossy=True,
        alpha=False,
        largest_side=65500,
        largest_exif=65533,
    ),
    ImageFormat("WEBP", (".webp",), lossy=True, grey_profile=False, largest_side=16383),
    ImageFormat("TIFF", (".tiff", ".tif"), bits=16),
)
BY_SUFFIX: Mapping[str, ImageFormat] = {
    suffix: known for known in FORMATS for suffix in known.suffixes
}
SUFFIXES = tuple(BY_SUFFIX)
OPTIONS = tuple(known.option for known in FORMATS)
# For people: "PNG, JPEG, WEBP or TIFF".
NAMES = f"{', '.join(known.name for known in FORMATS[:-1])} or {FORMATS[-1].name}"
