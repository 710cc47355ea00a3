"""Cut random patches with texture from a photo."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_export.models.training.data.exposure import MARGIN

TEXTURED = 5.0  # smallest mean gradient of a useful patch, in grey levels per pixel
TRIES = 8
SHRINK = 1.6  # largest downscaling factor, for variety; downscaled images are sharper


def random_crop(
    photo: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cut a patch of a photo that has texture.

    Up to TRIES random crops are tried: the first with enough texture is taken, or else the one with
    the most.

    Args:
        photo: uint8 [H, W, 3], sRGB-encoded RGB, at least as large as `size`.
        size: height and width in pixels, without margin.
        rng: everything random comes from it.

    Returns:
        uint8 [size[0] + 2 MARGIN, size[1] + 2 MARGIN, 3]. It may be downscaled and flipped.
    """
    limit = min(photo.shape[0] / size[0], photo.shape[1] / size[1])
    scale = rng.uniform(1.0, max(1.0, min(SHRINK, limit)))
    best, most = photo, -1.0
    for _ in range(TRIES):
        crop = _cut(photo, size, scale, rng)
        amount = float(gradient(crop[MARGIN:-MARGIN, MARGIN:-MARGIN, 1]).mean())
        if amount > most:
            best, most = crop, amount
        if amount > TEXTURED:
            break
    return np.ascontiguousarray(best[:, ::-1]) if rng.random() < 0.5 else best


def _cut(
    photo: NDArray[np.uint8], size: tuple[int, int], scale: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cut a patch of `scale` times `size` at a random position, downscale it to `size`, add MARGIN.

    Beyond the edge of the photo, the margin is a reflection.
    """
    wide = round(MARGIN * scale)
    (top, bottom), (left, right) = (
        _span(round(side * scale), limit, wide, rng)
        for side, limit in zip(size, photo.shape, strict=False)
    )
    inside = photo[max(0, top) : bottom, max(0, left) : right]
    above, below = max(0, -top), max(0, bottom - photo.shape[0])
    before, after = max(0, -left), max(0, right - photo.shape[1])
    crop = np.pad(inside, ((above, below), (before, after), (0, 0)), mode="reflect")
    target = (size[1] + 2 * MARGIN, size[0] + 2 * MARGIN)
    if crop.shape[:2] != target[::-1]:
        return np.asarray(cv2.resize(crop, target, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return crop


def _span(side: int, limit: int, wide: int, rng: np.random.Generator) -> tuple[int, int]:
    """Start and end of a random interval of length `side` in 0..limit, with `wide` added to both
    ends."""
    side = min(side, limit)
    start = int(rng.integers(limit - side + 1))
    return start - wide, start + side + wide


def gradient(grey: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of the gradient of a grey image [H, W], per pixel, by Sobel filters; [H, W]."""
    plane = np.ascontiguousarray(grey, dtype=np.float32)
    dx, dy = cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.magnitude(dx, dy) / 8, dtype=np.float32)  # Sobel weights sum to 8
