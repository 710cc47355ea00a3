"""Draw rows of captioned pictures for the README and the demo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CAPTION = 34
Panel = tuple[NDArray[np.uint8], str]


def arguments(*names: str) -> list[Path]:
    """The paths on the command line, one for each name; exits with code 2 if they do not match."""
    if len(sys.argv) != len(names) + 1 or any(a.startswith("-") for a in sys.argv[1:]):
        print(f"usage: python {sys.argv[0]} {' '.join(names)}", file=sys.stderr)
        sys.exit(2)
    return [Path(argument) for argument in sys.argv[1:]]


def filled(folder: Path) -> list[Path]:
    """The files FOLDER/sharp/*.png that `bench/photos.py` writes; exits with code 2 without any."""
    photos = sorted((folder / "sharp").glob("*.png"))
    if not photos:
        print(
            f"error: {folder}/sharp contains no photo: run bench/photos.py first", file=sys.stderr
        )
        sys.exit(2)
    return photos


def to_8bit(rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert an image [H, W, 3], clipped to 0..1, to uint8."""
    pixels: NDArray[np.uint8] = np.rint(255 * rgb.clip(0, 1)).astype(np.uint8)
    return pixels


def save_sheet(rows: Sequence[Sequence[Panel]], path: Path, side: int = 320) -> None:
    """Write rows of captioned panels, each resized to a width of `side` pixels."""
    strips = [_strip(row, side) for row in rows]
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    sheet.save(path, quality=92)


def _strip(row: Sequence[Panel], side: int) -> Image.Image:
    pictures = [Image.fromarray(pixels) for pixels, _ in row]
    height = max(round(side * picture.height / picture.width) for picture in pictures)
    strip = Image.new("RGB", (side * len(row), height + CAPTION), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(15)
    for position, (picture, (_, caption)) in enumerate(zip(pictures, row, strict=True)):
        size = (side, round(side * picture.height / picture.width))
        strip.paste(picture.resize(size, Image.Resampling.LANCZOS), (position * side, 0))
        draw.text((position * side + 8, height + 8), caption, "black", font=font)
    return strip
