"""Pad images to a multiple of a size, with the same result in torch and in the exported graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.models.image_spec import Padding


def pad_to_multiple(x: Tensor, multiple: int, padding: Padding = "zeros") -> Tensor:
    """Pad x [N, C, H, W] at the right and the bottom to the next multiple of `multiple`.

    "reflect" mirrors at the last row and column without repeating it. Unlike `F.pad` it also
    supports images smaller than the padding by mirroring repeatedly, as numpy's "reflect".
    """
    height, width = x.shape[-2:]
    if padding == "zeros":
        return F.pad(x, (0, -width % multiple, 0, -height % multiple))
    for axis, size in ((2, height), (3, width)):
        if size % multiple:
            position = torch.arange(size + -size % multiple, device=x.device)
            x = x.index_select(axis, mirrored(position, size))
    return x


def mirrored(position: Tensor, size: int) -> Tensor:
    """The index in 0..size-1 to which a position 0, 1, 2, ... is reflected: 0 1 2 3 2 1 0 1 for
    size 4."""
    period = max(2 * (size - 1), 1)
    phase = position % period
    return torch.minimum(phase, period - phase) if size > 1 else torch.zeros_like(position)
