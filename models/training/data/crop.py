"""Random patches of a photo that show something."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_export.models.training.data.exposure import MARGIN

TEXTURED = 5.0  # mean gradient, in grey levels a pixel, of a patch worth using
TRIES = 8
SHRINK = 1.6  # at most, for variety; what is shrunk is sharper


def random_crop(
    photo: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The first textured one of TRIES random crops, else the one with most texture, + MARGIN."""
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
    """A patch of `scale` times `size` somewhere in the photo, shrunk to `size`, plus MARGIN.

    Beyond the photo's edge the margin is its reflection.
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
    """Start and end of a random part of 0..limit, `wide` longer at both ends."""
    side = min(side, limit)
    start = int(rng.integers(limit - side + 1))
    return start - wide, start + side + wide


def gradient(grey: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Length of the gradient a pixel, [H, W] -> [H, W]."""
    plane = np.ascontiguousarray(grey, dtype=np.float32)
    dx, dy = cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.magnitude(dx, dy) / 8, dtype=np.float32)  # Sobel's weights add up to 8
