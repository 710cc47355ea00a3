"""Pad images to the size that a network accepts, with the same result in torch and in the exported
graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.models.image_spec import ImageSpec, Padding


def pad_image(x: Tensor, images: ImageSpec) -> Tensor:
    """Pad x [N, C, H, W] at the right and the bottom to `images.padded(H, W)`."""
    return _pad(x, *images.padded(*x.shape[-2:]), images.padding)


def pad_to_multiple(x: Tensor, multiple: int, padding: Padding = "zeros") -> Tensor:
    """Pad x [N, C, H, W] at the right and the bottom to the next multiple of `multiple`."""
    height, width = x.shape[-2:]
    return _pad(x, height + -height % multiple, width + -width % multiple, padding)


def _pad(x: Tensor, height: int, width: int, padding: Padding) -> Tensor:
    """Pad x [N, C, H, W] to [N, C, height, width].

    "reflect" mirrors at the last row and column without repeating it. Unlike `F.pad` it also
    supports images smaller than the padding by mirroring repeatedly, as numpy's "reflect".
    """
    if padding == "zeros":
        return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
    for axis, target in ((2, height), (3, width)):
        size = x.shape[axis]
        if size != target:
            position = torch.arange(target, device=x.device)
            x = x.index_select(axis, mirrored(position, size))
    return x


def mirrored(position: Tensor, size: int) -> Tensor:
    """The index in 0..size-1 to which a position 0, 1, 2, ... is reflected: 0 1 2 3 2 1 0 1 for
    size 4."""
    period = max(2 * (size - 1), 1)
    phase = position % period
    return torch.minimum(phase, period - phase) if size > 1 else torch.zeros_like(position)
