"""Draw object silhouettes with soft edges: ellipses, polygons and blobs of random harmonics."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray


def random_shape(
    rng: np.random.Generator, size: tuple[int, int], centre: tuple[float, float], area: float
) -> NDArray[np.float32]:
    """Draw a random silhouette whose edge is 1 to 3 pixels soft.

    Args:
        rng: everything random comes from it.
        size: height and width of the image in pixels.
        centre: (x, y) in pixels. The part of the silhouette outside the image is cut off.
        area: approximate area in pixels.

    Returns:
        float32 [H, W] in 0..1.
    """
    outline = _OUTLINES[int(rng.integers(len(_OUTLINES)))](rng)
    outline = outline @ _rotate_and_stretch(rng)
    outline *= math.sqrt(area / max(_area(outline), 1e-6))
    return draw(outline + np.array(centre), size, softness=rng.uniform(0.5, 1.2))


def draw(
    outline: NDArray[np.float64], size: tuple[int, int], softness: float
) -> NDArray[np.float32]:
    """Fill a polygon and smooth its edge.

    Args:
        outline: [n, 2], corners (x, y) in pixels.
        size: height and width of the image in pixels.
        softness: sigma of the Gaussian in pixels.

    Returns:
        float32 [H, W] in 0..1.
    """
    shift = 4
    points = np.round(outline * 2**shift).astype(np.int32)
    filled = np.zeros(size, np.uint8)
    cv2.fillPoly(filled, [points], 255, cv2.LINE_AA, shift)
    soft = cv2.GaussianBlur(filled.astype(np.float32) / 255, (0, 0), softness)
    return np.asarray(soft, dtype=np.float32)


def _ellipse(rng: np.random.Generator) -> NDArray[np.float64]:
    return _polar(np.ones(96))


def _polygon(rng: np.random.Generator) -> NDArray[np.float64]:
    """4 to 8 corners around the centre."""
    count = int(rng.integers(4, 9))
    angles = 2 * math.pi * (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / count
    radii = rng.uniform(0.6, 1.0, count)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _blob(rng: np.random.Generator) -> NDArray[np.float64]:
    """Radius 1 plus harmonics 2 to 7; higher ones are weaker."""
    angles = np.linspace(0, 2 * math.pi, 128, endpoint=False)
    radii = np.ones_like(angles)
    for order in range(2, 8):
        strength = rng.normal() * 0.35 / order
        radii += strength * np.cos(order * angles + rng.uniform(0, 2 * math.pi))
    return _polar(np.maximum(radii, 0.25))


_OUTLINES = (_ellipse, _polygon, _blob, _blob)


def _polar(radii: NDArray[np.float64]) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _rotate_and_stretch(rng: np.random.Generator) -> NDArray[np.float64]:
    angle, stretch = rng.uniform(0, math.pi), rng.uniform(1.0, 2.2) ** 0.5
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray(np.diag([stretch, 1 / stretch]) @ rotation)


def _area(outline: NDArray[np.float64]) -> float:
    """Area of a polygon [n, 2] by the shoelace formula."""
    x, y = outline.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
