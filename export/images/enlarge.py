"""A photo with restored pixels, whose alpha and metadata are true of the size of these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deblur_export.export.images.photo_file import Photo, Samples
from deblur_export.export.images.transparency import hidden_pixels


def with_pixels(
    photo: Photo, rgb: NDArray[np.float32], alpha: NDArray[np.float32] | None = None
) -> Photo:
    """The photo with restored colours. Those under full transparency stay as they are.

    Args:
        photo: the original, [H, W, 3].
        rgb: the restored image, float32 [s H, s W, 3] for a scale s; changed in place.
        alpha: its restored alpha, float32 [s H, s W]; None enlarges that of the photo. A photo
            without alpha stays without.
    """
    scale = rgb.shape[0] // photo.rgb.shape[0]
    samples, metadata = photo.alpha, photo.metadata.sized(rgb.shape[1], rgb.shape[0], scale)
    if samples is not None:
        if alpha is not None:
            samples = _rounded(alpha * np.iinfo(samples.dtype).max, samples)
        elif scale > 1:
            samples = enlarged(samples, scale)
        hidden = hidden_pixels(photo.alpha)
        if hidden is not None:
            rows, columns = np.nonzero(hidden.repeat(scale, 0).repeat(scale, 1) & (samples == 0))
            rgb[rows, columns] = photo.rgb[rows // scale, columns // scale]
    return replace(photo, rgb=rgb, alpha=samples, metadata=metadata)


def enlarged(alpha: Samples, scale: int) -> Samples:
    """Alpha [H, W] at `scale`, bicubic: at the edge of an opaque region it overshoots once, which
    is clipped, so that no faint second edge appears."""
    height, width = alpha.shape
    values = Image.fromarray(alpha.astype(np.float32)).resize(
        (scale * width, scale * height), Image.Resampling.BICUBIC
    )
    return _rounded(np.asarray(values), alpha)


def _rounded(values: NDArray[np.float32], like: Samples) -> Samples:
    """As samples of the type of another alpha."""
    top = np.iinfo(like.dtype).max
    samples: Samples = np.rint(np.clip(values, 0, top)).astype(like.dtype)
    return samples
