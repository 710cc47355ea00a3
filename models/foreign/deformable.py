"""torchvision's deformable convolution as the op DeformConv2d."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.plugins.ops.deform_conv2d import KERNELS
from deblur_export.plugins.ops.deform_conv2d import deform_conv2d as own

Pair = int | Sequence[int]


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """`torchvision.ops.deform_conv2d` of stride 1 with an output of the size of its input.

    Args:
        input: [N, C, H, W].
        offset: [N, 2 * P * k * k, H, W] for P groups of channels, (dy, dx) for each tap.
        weight: [O, C / G, k, k], k of 3 or 5.
        bias: [O].
        stride, padding, dilation: a number, or one for each axis.
        mask: [N, P * k * k, H, W]; None for ones.

    Returns:
        [N, O, H, W].

    Raises:
        DeblurExportError: another stride, kernel or padding.
    """
    side, steps = _kernel(weight, _both(stride), _both(padding), _both(dilation))
    taps, channels = side * side, input.shape[1]
    parts, groups = offset.shape[1] // (2 * taps), channels // weight.shape[1]
    if mask is None:
        mask = offset.new_ones(offset.shape[0], parts * taps, *offset.shape[2:])
    offset = offset + _spread(side, steps, parts).to(offset)
    # Pieces of channels that share both their weights' group and their offsets.
    pieces = math.lcm(parts, groups)
    width, rows = channels // pieces, weight.shape[0] // groups
    sums: list[Tensor | None] = [None] * groups
    none = weight.new_zeros(rows)
    for piece in range(pieces):
        part, group = piece * parts // pieces, piece * groups // pieces
        first = piece * width - group * weight.shape[1]
        y = own(
            input[:, piece * width : (piece + 1) * width],
            offset[:, 2 * taps * part : 2 * taps * (part + 1)].float(),
            weight[group * rows : (group + 1) * rows, first : first + width],
            none,
            mask[:, taps * part : taps * (part + 1)],
            kernel=side,
        )
        before = sums[group]
        sums[group] = y if before is None else before + y
    result = torch.cat([s for s in sums if s is not None], 1)
    return result if bias is None else result + bias.view(1, -1, 1, 1)


def _both(value: Pair) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _kernel(
    weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """The side of the kernel and its dilation, if they are of the kind that can be exported."""
    high, wide = weight.shape[2:]
    if stride != (1, 1) or high != wide or high not in KERNELS:
        raise DeblurExportError(
            f"a deformable convolution of kernel {high}x{wide} and stride {stride[0]} cannot be "
            "exported; kernels of 3x3 and 5x5 and stride 1 can"
        )
    if padding != (dilation[0] * (high // 2), dilation[1] * (high // 2)):
        raise DeblurExportError(
            f"a deformable convolution of padding {padding[0]} whose output has another size than "
            "its input cannot be exported"
        )
    return high, dilation


def _spread(side: int, dilation: tuple[int, int], parts: int) -> Tensor:
    """What dilation adds to the offsets, [1, 2 * parts * side * side, 1, 1]."""
    steps = torch.arange(side) - side // 2
    dy, dx = torch.meshgrid(steps * (dilation[0] - 1), steps * (dilation[1] - 1), indexing="ij")
    return torch.stack([dy, dx], -1).flatten().repeat(parts).view(1, -1, 1, 1)


class DeformConv2d(nn.Module):
    """`torchvision.ops.DeformConv2d`: its parameters have the same names and shapes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = _both(kernel_size), _both(stride)
        self.padding, self.dilation = _both(padding), _both(dilation)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `deform_conv2d`."""
        s, p, d = self.stride, self.padding, self.dilation
        return deform_conv2d(input, offset, self.weight, self.bias, s, p, d, mask)


def of_operator(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dil_h: int,
    dil_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """The operator torchvision::deform_conv2d, as captured programs have it."""
    stride, padding, dilation = (stride_h, stride_w), (pad_h, pad_w), (dil_h, dil_w)
    factors = mask if use_mask else None
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, factors)
