"""Draw a blur mask over the image that it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deblur_export.atomic import atomic_path

ORANGE = (1.0, 0.45, 0.0)
OPACITY = 0.45


def tinted(rgb: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blend the masked pixels of an image with orange.

    Args:
        rgb: float32 [H, W, 3], clipped to 0..1.
        mask: float32 [H, W] in 0..1.

    Returns:
        uint8 [H, W, 3].
    """
    opacity = OPACITY * mask[..., None]
    mixed = (1 - opacity) * rgb.clip(0, 1) + opacity * np.asarray(ORANGE, np.float32)
    pixels: NDArray[np.uint8] = np.rint(255 * mixed).astype(np.uint8)
    return pixels


def write_overlay(rgb: NDArray[np.float32], mask: NDArray[np.float32], path: Path) -> None:
    """Write the result of `tinted` as a PNG file.

    Raises:
        DeblurExportError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(tinted(rgb, mask)).save(temporary, "PNG")
