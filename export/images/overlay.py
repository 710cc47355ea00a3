"""A blur mask over the image it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deblur_export.atomic import atomic_path

ORANGE = (1.0, 0.45, 0.0)
SHARE = 0.45


def tinted(rgb: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """rgb [H, W, 3] with the masked pixels (mask [H, W]) in orange, both in 0..1; 8 bit."""
    share = SHARE * mask[..., None]
    mixed = (1 - share) * rgb.clip(0, 1) + share * np.asarray(ORANGE, np.float32)
    pixels: NDArray[np.uint8] = np.rint(255 * mixed).astype(np.uint8)
    return pixels


def write_overlay(rgb: NDArray[np.float32], mask: NDArray[np.float32], path: Path) -> None:
    """Write `tinted` as a PNG file."""
    with atomic_path(path) as temporary:
        Image.fromarray(tinted(rgb, mask)).save(temporary, "PNG")
