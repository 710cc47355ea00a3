"""Between photos and the images of networks with 1, 3 or 4 channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
LUMA = np.asarray((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601, as Pillow's mode L


def split(rgb: Image, channels: int, grey: bool = False, alpha: Image | None = None) -> Image:
    """The images that a network restores for one photo.

    Args:
        rgb: [H, W, 3] in 0..1.
        channels: of the network. With 1, each colour is an image of its own; with 4, the last is
            alpha.
        grey: whether the three colours are equal; they are then one image for 1 channel.
        alpha: [H, W] in 0..1; None for an opaque photo.

    Returns:
        [1, channels, H, W], or [3, 1, H, W] for a colour photo and a network of 1 channel.
    """
    planes = rgb.transpose(2, 0, 1)
    if channels == 1:
        return np.ascontiguousarray(planes[: 1 if grey else 3, None])
    if channels == 4:
        opacity = np.ones(rgb.shape[:2], np.float32) if alpha is None else alpha
        planes = np.concatenate([planes, opacity[None]])
    return np.ascontiguousarray(planes[None])


def joined(images: Image, channels: int) -> tuple[Image, Image | None]:
    """The photo [H, W, 3] and, of a network of 4 channels, its alpha [H, W]; the inverse of
    `split`."""
    if channels == 1:
        planes = images[:, 0] if len(images) == 3 else images[0].repeat(3, axis=0)
        return planes.transpose(1, 2, 0), None
    return images[0, :3].transpose(1, 2, 0), images[0, 3] if channels == 4 else None


def network_image(
    rgb: Image, channels: int, grey: bool = False, alpha: NDArray[Any] | None = None
) -> Image:
    """A photo as one image of a network, [1, channels, H, W]: the brightness for 1 channel.

    Args:
        rgb, channels, grey: as of `split`.
        alpha: as in `Photo.alpha`.
    """
    if channels == 1 and not grey:
        rgb, grey = (rgb @ LUMA)[..., None].astype(np.float32), True
    return split(rgb, channels, grey, opacity(alpha))


def opacity(alpha: NDArray[Any] | None) -> Image | None:
    """Samples of alpha, uint8 or uint16, in 0..1."""
    if alpha is None:
        return None
    return (alpha / np.float32(np.iinfo(alpha.dtype).max)).astype(np.float32)
