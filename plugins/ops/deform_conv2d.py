"""Modulated deformable convolution, dense in the channels.

    y[:, p] = bias + sum_k mask[k, p] W_k bilinear(x, p + g_k + o_k(p)),   k = 0 .. kernel^2 - 1

g_k is the regular grid (row-major, padding kernel // 2) and o_k(p) = (dy, dx) the offset of tap k
at pixel p. A neighbour outside the image counts as zero. With the mask as a free kernel per pixel
this is the pixel-dependent filtering of SAPHN. DeformConv2dAt computes only the listed pixels p.

The bodies sample one row of taps, multiply it by its matrix and add the product before they take
the next row, so that no tensor of channels x taps x pixels is held. On ONNX Runtime that is as fast
as its DeformConv, which does hold it (32 channels at 256x256: 0.34 and 0.38 s on one thread; 128 at
64x64: 0.075 and 0.078), and nearer to PyTorch, whose grid_sample rounds coordinates the same way.

In float16 and bfloat16, sampling positions, samples and sums are float32; only the products are
computed in the low precision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.libraries import cpu, cuda
from deblur_export.plugins.ops.gradient import register_gradient
from deblur_export.plugins.parameters import (
    POSITIONS,
    AttributeSpec,
    NativeFunction,
    TensorSpec,
)
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target

KERNELS = (3, 5)
LARGEST = 5
FLOAT = int(ir.DataType.FLOAT)
BODIES = {
    "portable, ort, openvino, rtx": "for each row of taps one GridSample, one product with the "
    "mask and one matrix product",
}
# DeformConv2d has no index: it passes NULL.
CPU_ARGUMENTS = "x offset weight bias mask index y n c h w outputs pixels kernel threads"
CUDA_ARGUMENTS = (
    "type x offset weight bias mask index y n c h w outputs pixels kernel workspace "
    "workspace_bytes stream"
)
WORKSPACE = "type n c h w outputs kernel"


def deform_conv2d_reference(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, index: Tensor
) -> Tensor:
    """DeformConv2dAt in plain differentiable PyTorch.

    Args:
        x, offset, weight, bias, mask, index: as for `deform_conv2d_at`, on any device; float16 and
            bfloat16 compute in float32.

    Returns:
        [N, O, P], dtype of x.
    """
    compute = torch.promote_types(x.dtype, torch.float32)
    h, w = x.shape[2:]
    kernel = int(weight.shape[-1])
    features, matrices = x.to(compute), weight.to(compute).flatten(2).unbind(2)
    # Unbound, because the gradient of an index is a whole tensor of zeros around it.
    field, factors = offset.to(compute).unbind(1), mask.to(compute).unsqueeze(2).unbind(1)
    row, column = index // w, index % w
    y = bias.to(compute).unsqueeze(1)
    for tap in range(kernel * kernel):
        i, j = divmod(tap, kernel)
        py = row + (i - kernel // 2) + field[2 * tap]
        px = column + (j - kernel // 2) + field[2 * tap + 1]
        # Normalized for align_corners=False, which an axis of one pixel does not break.
        grid = torch.stack([(2 * px + 1) / w - 1, (2 * py + 1) / h - 1], dim=-1)
        sampled = F.grid_sample(features, grid.unsqueeze(1), align_corners=False).squeeze(2)
        y = y + matrices[tap] @ (sampled * factors[tap])
    return y.to(x.dtype)


def _dense(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """DeformConv2d as DeformConv2dAt with every pixel listed."""
    n, _, h, w = x.shape
    index = torch.arange(h * w, device=x.device).expand(n, -1)
    y = deform_conv2d_reference(x, offset.flatten(2), weight, bias, mask.flatten(2), index)
    return y.view(n, -1, h, w)


@torch.library.custom_op("deblur::deform_conv2d", mutates_args=())
def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, *, kernel: int
) -> Tensor:
    """Deformable convolution with a factor for each tap of each pixel, stride 1.

    Args:
        x: [N, C, H, W].
        offset: [N, 2*kernel*kernel, H, W], displacement of each tap in pixels, (dy, dx)
            interleaved; zeros leave an ordinary convolution with zero padding.
        weight: [O, C, kernel, kernel].
        bias: [O].
        mask: [N, kernel*kernel, H, W], factor of each tap, any sign; 1 changes nothing.
        kernel: side of the kernel in pixels, 3 or 5.

    Returns:
        [N, O, H, W], contiguous, dtype of x.

    Raises:
        ValueError: a shape does not fit.
    """
    tensors = (x, offset, weight, bias, mask)
    DENSE.check(*tensors, kernel=kernel)
    if cpu.supports(DENSE, *tensors):
        return cpu.compute(DENSE, *tensors, kernel=kernel)
    if cuda.supports(DENSE, *tensors):
        return cuda.compute(DENSE, *tensors, kernel=kernel)
    return _dense(*tensors).contiguous()


@torch.library.custom_op("deblur::deform_conv2d_at", mutates_args=())
def deform_conv2d_at(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    index: Tensor,
    *,
    kernel: int,
) -> Tensor:
    """`deform_conv2d` at listed pixels.

    Args:
        x, weight, bias, kernel: as there.
        offset: [N, 2*kernel*kernel, P], of the listed pixels.
        mask: [N, kernel*kernel, P], likewise.
        index: [N, P] int64, pixel indices y*W + x within each image; repetitions are allowed.

    Returns:
        [N, O, P], contiguous, dtype of x.

    Raises:
        ValueError: a shape does not fit.
    """
    tensors = (x, offset, weight, bias, mask, index)
    LISTED.check(*tensors, kernel=kernel)
    if cpu.supports(LISTED, *tensors):
        return cpu.compute(LISTED, *tensors, kernel=kernel)
    if cuda.supports(LISTED, *tensors):
        return cuda.compute(LISTED, *tensors, kernel=kernel)
    return deform_conv2d_reference(*tensors).contiguous()


@deform_conv2d.register_fake
def _(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, *, kernel: int
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])


@deform_conv2d_at.register_fake
def _(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    index: Tensor,
    *,
    kernel: int,
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], index.shape[1])


register_gradient(deform_conv2d, lambda *tensors, kernel: _dense(*tensors))
register_gradient(deform_conv2d_at, lambda *tensors, kernel: deform_conv2d_reference(*tensors))


@register_flop_formula([torch.ops.deblur.deform_conv2d, torch.ops.deblur.deform_conv2d_at])
def _flops(
    x_shape: torch.Size,
    offset_shape: torch.Size,
    weight_shape: torch.Size,
    *args: Any,
    **kwargs: Any,
) -> int:
    """The products of an ordinary convolution with this kernel at the computed pixels."""
    n, _, *pixels = offset_shape
    outputs, c, k, _ = weight_shape
    return int(2 * n * torch.Size(pixels).numel() * outputs * c * k * k)


def _body(target: Target) -> ir.Function:
    b = FunctionBody(DENSE.inputs, DENSE.attributes, target.opset)
    x, offset, weight, bias, mask = b.inputs
    height, width = b.size(x, 2), b.size(x, 3)
    count = b.Squeeze(b.Mul(height, width), b.ints(0))
    index = b.Unsqueeze(b.Range(b.scalar(0), count, b.scalar(1)), b.ints(0))
    y = _at(b, x, offset, weight, bias, mask, index)
    y = b.Reshape(y, b.Concat(b.ints(0, -1), height, width, axis=0))
    return b.function(DENSE.name, [("y", y)], DENSE.doc)


def _at_body(target: Target) -> ir.Function:
    b = FunctionBody(LISTED.inputs, LISTED.attributes, target.opset)
    x, offset, weight, bias, mask, index = b.inputs
    y = _at(b, x, offset, weight, bias, mask, index)
    return b.function(LISTED.name, [("y", y)], LISTED.doc)


def _five(
    b: FunctionBody, weight: ir.Value, offset: ir.Value, mask: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """A 3x3 kernel as a 5x5 one with a border of zeros, for the number of taps of a body is fixed.

    Returns weight [O, C, 5, 5], offset [N, 5, 5, 2, P], mask [N, 5, 5, P].
    """
    kernel = b.Reshape(b.Constant(value_int=b.reference("kernel", "value_int")), b.ints(1))
    rim = b.Div(b.Sub(b.ints(LARGEST), kernel), b.ints(2))
    none = b.ints(0)
    on_weight = b.Concat(none, none, rim, rim, none, none, rim, rim, axis=0)
    on_offset = b.Concat(none, rim, rim, none, none, none, rim, rim, none, none, axis=0)
    on_mask = b.Concat(none, rim, rim, none, none, rim, rim, none, axis=0)
    fields = b.Reshape(offset, b.Concat(b.ints(0), kernel, kernel, b.ints(2, -1), axis=0))
    factors = b.Reshape(mask, b.Concat(b.ints(0), kernel, kernel, b.ints(-1), axis=0))
    return b.Pad(weight, on_weight), b.Pad(fields, on_offset), b.Pad(factors, on_mask)


def _at(
    b: FunctionBody,
    x: ir.Value,
    offset: ir.Value,
    weight: ir.Value,
    bias: ir.Value,
    mask: ir.Value,
    index: ir.Value,
) -> ir.Value:
    """One GridSample and one matrix product per row of taps, [N, O, P]; index [N, P] or [1, P].

    Samples and sums are float32 whatever the type of x (TensorRT wants the grid in the type of what
    it samples), the products are in that type.
    """
    features = b.Cast(x, to=FLOAT)
    weight, offset, mask = _five(b, weight, offset, mask)
    grids = b.split(_grid(b, x, offset, index), LARGEST, axis=1)
    factors = b.split(mask, LARGEST, axis=1)
    matrices = b.split(weight, LARGEST, axis=2)
    rows = b.Concat(b.ints(0), b.Mul(b.size(x, 1), b.ints(LARGEST)), b.ints(-1), axis=0)
    total = b.Unsqueeze(b.Cast(bias, to=FLOAT), b.ints(1))
    for row in range(LARGEST):
        sampled = b.GridSample(features, b.Squeeze(grids[row], b.ints(1)), align_corners=0)
        modulated = b.Mul(sampled, b.Cast(factors[row], to=FLOAT))
        columns = b.Reshape(b.CastLike(modulated, x), rows)  # [N, C*5, P]
        product = b.MatMul(b.Reshape(matrices[row], b.ints(0, -1)), columns)
        total = b.Add(total, b.Cast(product, to=FLOAT))
    return b.CastLike(total, x)


def _grid(b: FunctionBody, x: ir.Value, offset: ir.Value, index: ir.Value) -> ir.Value:
    """Sampling position of each tap, [N, 5, 5, P, 2] in GridSample's coordinates, in FP32."""
    width = b.size(x, 3)
    last = b.ints(4)
    y = _axis(b, offset, 0, b.Div(index, width), b.size(x, 2))
    x = _axis(b, offset, 1, b.Mod(index, width), width)
    return b.Concat(b.Unsqueeze(x, last), b.Unsqueeze(y, last), axis=4)


def _axis(
    b: FunctionBody, offset: ir.Value, component: int, own: ir.Value, size: ir.Value
) -> ir.Value:
    """Normalized coordinate of every tap along one axis, [N, 5, 5, P]."""
    where = b.ints(component), b.ints(component + 1), b.ints(3)
    moved = b.Squeeze(b.Slice(offset, *where), b.ints(3))
    steps = [float(step - LARGEST // 2) for step in range(LARGEST)]
    tap = [[[s] for s in steps]] if component else [[[s]] for s in steps]
    own = b.Unsqueeze(b.Cast(own, to=FLOAT), b.ints(1, 2))
    position = b.Add(moved, b.Add(own, b.floats([tap])))
    doubled = b.Add(b.Mul(position, b.floats(2.0)), b.floats(1.0))
    return b.Sub(b.Div(doubled, b.Cast(size, to=FLOAT)), b.floats(1.0))


DENSE = OpSpec(
    name="DeformConv2d",
    doc="Modulated deformable convolution, one offset group, padding kernel // 2; offset "
    "[N,2*k*k,H,W] as (dy,dx) a tap, in pixels; mask [N,k*k,H,W] a factor a tap.",
    about=__doc__,
    source="Zhu et al., Deformable ConvNets v2, CVPR 2019, arXiv:1811.11168, Eq. 1, with one "
    "offset group; ONNX DeformConv",
    torch_op=torch.ops.deblur.deform_conv2d.default,
    inputs={
        "x": TensorSpec("T", "N, C, H, W", "features"),
        "offset": TensorSpec(
            "tensor(float)",
            "N, 2*kernel*kernel, H, W",
            "displacement of each tap in pixels, (dy, dx) interleaved",
            fp32=POSITIONS,
        ),
        "weight": TensorSpec("T", "O, C, kernel, kernel", "weights of the convolution"),
        "bias": TensorSpec("T", "O", "added to each output channel"),
        "mask": TensorSpec("T", "N, kernel*kernel, H, W", "factor of each tap, of any sign"),
    },
    outputs={"y": TensorSpec("T", "N, O, H, W", "the filtered features")},
    attributes={"kernel": AttributeSpec("side of the kernel in pixels", values=KERNELS)},
    body=_body,
    bodies=BODIES,
    cpu=NativeFunction("deblur_deform_conv2d", CPU_ARGUMENTS, sizes={"pixels": "H*W"}),
    cuda=NativeFunction(
        "deblur_cuda_deform_conv2d", CUDA_ARGUMENTS, WORKSPACE, sizes={"pixels": "H*W"}
    ),
    torch_on_cpu=True,
)

LISTED = OpSpec(
    name="DeformConv2dAt",
    doc="DeformConv2d at the pixels listed in index [N,P]; offset [N,2*k*k,P], mask [N,k*k,P].",
    about=__doc__,
    source=DENSE.source,
    torch_op=torch.ops.deblur.deform_conv2d_at.default,
    inputs={
        **DENSE.inputs,
        "offset": replace(DENSE.inputs["offset"], shape="N, 2*kernel*kernel, P"),
        "mask": replace(DENSE.inputs["mask"], shape="N, kernel*kernel, P"),
        "index": TensorSpec(
            "tensor(int64)",
            "N, P",
            "pixel indices y*W + x within each image, in any order, repetitions allowed",
        ),
    },
    outputs={"y": TensorSpec("T", "N, O, P", "the filtered features of the listed pixels")},
    attributes=DENSE.attributes,
    body=_at_body,
    bodies=BODIES,
    cpu=NativeFunction("deblur_deform_conv2d", CPU_ARGUMENTS),
    cuda=NativeFunction("deblur_cuda_deform_conv2d", CUDA_ARGUMENTS, WORKSPACE),
    torch_on_cpu=True,
)

SPECS = (DENSE, LISTED)
