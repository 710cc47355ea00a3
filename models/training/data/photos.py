"""Find the photos of a folder, assign them to splits and read them.

Photos of `photo_table` belong to the split given there. Any other file is assigned by the SHA-256
of its name: one in ten to validation, one in ten to testing, the others to training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data.photo_table import PHOTOS, SPLITS, Photo, Split
from deblur_export.photo_folder import photos_in

__all__ = ["PHOTOS", "SPLITS", "Photo", "PhotoFile", "Split", "find_photos", "load_photo"]

LONG_SIDE = 1600
SHORT_SIDE = 480  # the short side is not downscaled below this to make a photo sharp
SHARP = 0.8  # `sharpness` from which on a photo is not downscaled further
_BY_NAME = {photo.name: photo for photo in PHOTOS}


@dataclass(frozen=True)
class PhotoFile:
    """A photo with its split, and its row of the table if it has one."""

    path: Path
    split: Split
    photo: Photo | None

    def describe(self) -> dict[str, str]:
        """File name, SHA-256, split, package, author and licence, as dataset.json records them."""
        return {
            "file": self.path.name,
            "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
            "split": self.split,
            "package": self.photo.package if self.photo else "",
            "author": self.photo.author if self.photo else "not listed",
            "licence": self.photo.licence if self.photo else "not listed",
        }


def split_of(name: str) -> Split:
    """The split of a file name: from the table, or else from the hash of the name."""
    if name in _BY_NAME:
        return _BY_NAME[name].split
    digit = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return "val" if digit == 0 else "test" if digit == 1 else "train"


def find_photos(folder: Path) -> list[PhotoFile]:
    """Find the photos directly in `folder`, sorted by name.

    Raises:
        DeblurExportError: the folder does not exist or contains no photo.
    """
    return [
        PhotoFile(path, split_of(path.name), _BY_NAME.get(path.name)) for path in photos_in(folder)
    ]


def load_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo, apply its EXIF orientation and downscale it until edges are one pixel wide.

    The long side is reduced to at most 1600 pixels. Wallpapers and enlarged scans are softer than
    their resolution; they are downscaled further, as long as the short side stays above 480 pixels.

    Returns:
        uint8 [H, W, 3], sRGB-encoded RGB.

    Raises:
        DeblurExportError: the file is not a readable image.
    """
    try:
        with Image.open(path) as file:
            pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DeblurExportError(f"{path}: not a readable photo: {error}") from error
    image = _shrink(pixels, min(1.0, LONG_SIDE / max(pixels.shape)))
    while sharpness(image) < SHARP and min(image.shape[:2]) * 0.5**0.5 >= SHORT_SIDE:
        image = _shrink(image, 0.5**0.5)
    return image


def _shrink(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1.0:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Ratio of the strong gradients of an image to those of its half-size copy.

    About 1 if edges are one pixel wide, 0.5 if halving the image loses nothing.

    Args:
        image: uint8 [H, W, 3], RGB.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return _strong(grey) / max(_strong(np.asarray(half)), 1e-6)


def _strong(grey: NDArray[np.float32]) -> float:
    right = np.diff(grey, axis=1)[1:]
    down = np.diff(grey, axis=0)[:, 1:]
    return float(np.percentile(np.hypot(right, down), 98))
