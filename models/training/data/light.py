"""Light and its encoding (IEC 61966-2-1), and what a camera adds: noise and JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def to_linear(encoded: NDArray[np.float32]) -> Image:
    """sRGB-encoded 0..1 to linear light 0..1, any shape."""
    low = encoded / 12.92
    return np.where(encoded <= 0.04045, low, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = to_linear(np.arange(256, dtype=np.float32) / np.float32(255))


def decode(pixels: NDArray[np.uint8]) -> Image:
    """sRGB bytes to linear light 0..1, any shape."""
    return _LINEAR[pixels]


def to_srgb(linear: Image) -> Image:
    """Linear light to sRGB-encoded 0..1, clipped, any shape."""
    linear = np.clip(linear, 0.0, 1.0)
    high = 1.055 * linear ** np.float32(1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, high).astype(np.float32)


def add_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """White Gaussian noise on an encoded image, clipped to 0..1."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(sigma) * noise, 0.0, 1.0)


def through_jpeg(image: Image, quality: int) -> Image:
    """An encoded RGB image [H, W, 3] in 0..1 as it comes back from a JPEG file."""
    pixels = np.round(image[..., ::-1] * 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.asarray(back, dtype=np.uint8)[..., ::-1].astype(np.float32) / np.float32(255)
