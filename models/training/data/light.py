"""Convert between linear light and sRGB (IEC 61966-2-1), and add noise and JPEG artifacts."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def to_linear(encoded: NDArray[np.float32]) -> Image:
    """Convert sRGB-encoded values in 0..1, of any shape, to linear light in 0..1; float32."""
    low = encoded / 12.92
    return np.where(encoded <= 0.04045, low, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = to_linear(np.arange(256, dtype=np.float32) / np.float32(255))


def decode(pixels: NDArray[np.uint8]) -> Image:
    """Convert sRGB-encoded uint8 values, of any shape, to linear light in 0..1; float32."""
    return _LINEAR[pixels]


def to_srgb(linear: Image) -> Image:
    """Clip linear light of any shape to 0..1 and convert it to sRGB-encoded values in 0..1."""
    linear = np.clip(linear, 0.0, 1.0)
    high = 1.055 * linear ** np.float32(1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, high).astype(np.float32)


def add_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add white Gaussian noise to an sRGB-encoded image in 0..1 and clip to 0..1."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(sigma) * noise, 0.0, 1.0)


def through_jpeg(image: Image, quality: int) -> Image:
    """Compress an sRGB-encoded image [H, W, 3] in 0..1 as JPEG and decompress it again.

    `quality` is OpenCV's, 0 to 100.
    """
    pixels = np.round(image[..., ::-1] * 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.asarray(back, dtype=np.uint8)[..., ::-1].astype(np.float32) / np.float32(255)
