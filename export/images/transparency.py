"""Colours under full transparency: they are stored, nobody sees them, and a network would mix them
into the visible pixels beside them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def hidden_pixels(alpha: NDArray[np.unsignedinteger[Any]] | None) -> NDArray[np.bool_] | None:
    """Where an image is fully transparent, [H, W]; None if it is so nowhere or everywhere."""
    if alpha is None:
        return None
    hidden = alpha == 0
    return None if not hidden.any() or hidden.all() else hidden


def filled(rgb: Image, hidden: NDArray[np.bool_]) -> Image:
    """A copy of an image in which every hidden pixel has the colour of the nearest visible one.

    Args:
        rgb: [H, W, 3].
        hidden: [H, W], as of `hidden_pixels`.
    """
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(int(labels.max()) + 1, np.int64)  # a flat index of each label's pixel
    visible = np.flatnonzero(~hidden)
    nearest[labels.ravel()[visible]] = visible
    result = rgb.copy()
    result[hidden] = rgb.reshape(-1, 3)[nearest[labels[hidden]]]
    return result
