"""Cases of DeformConv2d and DeformConv2dAt."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deblur_export.plugins.ops.deform_conv2d import deform_conv2d, deform_conv2d_at
from tests.plugins.harness import Case, Inputs, rand, rounded


def deform(
    n: int, c: int, h: int, w: int, kernel: int, offset_scale: float = 1.5
) -> Callable[..., Inputs]:
    def make(dtype: torch.dtype) -> Inputs:
        taps, outputs = kernel * kernel, c + 1
        tensors = {
            "x": rand(n, c, h, w),
            "offset": rand(n, 2 * taps, h, w, scale=offset_scale),
            "weight": rand(outputs, c, kernel, kernel, scale=taps**-0.5),
            "bias": rand(outputs),
            "mask": rand(n, taps, h, w, seed=3),
        }
        return rounded(tensors, dtype) | {"kernel": kernel}

    return make


def listed(
    n: int, c: int, h: int, w: int, kernel: int, pixels: int | None, offset_scale: float = 1.5
) -> Callable[..., Inputs]:
    """Random pixels, some of them more than once; None lists every pixel in order."""

    def make(dtype: torch.dtype) -> Inputs:
        inputs = deform(n, c, h, w, kernel, offset_scale)(dtype)
        index = torch.arange(h * w).expand(n, -1)
        if pixels is not None:
            generator = torch.Generator().manual_seed(pixels)
            index = torch.randint(h * w, (n, pixels), generator=generator)
        for name in ("offset", "mask"):
            field = inputs[name].flatten(2)
            inputs[name] = field.gather(2, index.unsqueeze(1).expand(-1, field.shape[1], -1))
        attributes = {"kernel": inputs.pop("kernel")}
        return inputs | {"index": index.contiguous()} | attributes

    return make


def tent_deform(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, kernel: int
) -> Tensor:
    """The definition: every sample is a sum over all pixels q of x[q] tent(y - qy) tent(x - qx)."""
    n, _, h, w = x.shape
    y = bias.view(1, -1, 1, 1).expand(n, -1, h, w).clone()
    rows, columns = torch.arange(h).to(x), torch.arange(w).to(x)
    for tap in range(kernel * kernel):
        i, j = divmod(tap, kernel)
        py = rows.view(h, 1) + i - kernel // 2 + offset[:, 2 * tap]
        px = columns + j - kernel // 2 + offset[:, 2 * tap + 1]
        tent_y = (1 - (py[..., None] - rows).abs()).clamp(min=0)  # [N, H, W, H]
        tent_x = (1 - (px[..., None] - columns).abs()).clamp(min=0)  # [N, H, W, W]
        sample = torch.einsum("ncij,nhwi,nhwj->nchw", x, tent_y, tent_x)
        y += torch.einsum("oc,nchw,nhw->nohw", weight[:, :, i, j], sample, mask[:, tap])
    return y


def tent_deform_at(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    index: Tensor,
    kernel: int,
) -> Tensor:
    """The dense definition, an image whose only field values are those of one listed pixel."""
    n, _, h, w = x.shape
    y = x.new_zeros(n, len(bias), index.shape[1])
    for image, number in torch.cartesian_prod(torch.arange(n), torch.arange(index.shape[1])):
        pixel = int(index[image, number])
        full = [field[image, :, number].view(1, -1, 1, 1) for field in (offset, mask)]
        shift, factor = (field.expand(-1, -1, h, w) for field in full)
        dense = tent_deform(x[image : image + 1], shift, weight, bias, factor, kernel)
        y[image, :, number] = dense[0, :, pixel // w, pixel % w]
    return y


CASES = [
    *(
        Case("DeformConv2d", name, make, deform_conv2d, tent_deform)
        for name, make in (
            ("zero-offset", deform(1, 4, 6, 5, 5, 0.0)),
            ("batch-odd", deform(2, 3, 7, 11, 5)),
            ("kernel-3", deform(2, 3, 6, 5, 3)),
            ("far-outside", deform(1, 3, 5, 4, 5, 40.0)),
            ("one-pixel", deform(2, 2, 1, 1, 5)),
            ("one-row", deform(1, 2, 1, 9, 3)),
        )
    ),
    *(
        Case("DeformConv2dAt", name, make, deform_conv2d_at, tent_deform_at, rank=3)
        for name, make in (
            ("some", listed(2, 3, 7, 5, 5, 6)),
            ("every", listed(2, 3, 4, 5, 5, None)),
            ("kernel-3", listed(1, 3, 4, 5, 3, 4)),
            ("far-outside", listed(1, 2, 5, 4, 5, 4, 40.0)),
            ("one-pixel", listed(2, 2, 1, 1, 5, 1)),
            ("none", listed(1, 2, 3, 3, 5, 0)),
        )
    ),
]
