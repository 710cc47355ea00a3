"""Depth-wise 3x3 deformable convolution, one offset field for all channels, optionally gated.

    z[c, p] = bias[c] + sum_n weight[c, n] * bilinear(x[c], p + g_n + o_n(p)),   n = 0..8
    y = z, or with gate = 1   y[c] = z[c] * z[C/2 + c],   c < C/2

g_n is the regular 3x3 grid (row-major, padding 1) and o_n(p) = (dy, dx) the offset of tap n at
pixel p; a neighbour outside the image counts as zero. In M2AENet the taps follow the motion
trajectory of the pixel. Sampling positions do not depend on the channel, so they are computed once
per pixel. The gate is NAFNet's SimpleGate, which follows in M2AENet: where it is on, z is never
written.

Positions, samples and sums are float32 whatever the type of x. The CPU kernel also takes x and y
with the channels last, as float32 or bfloat16; OpenVINO uses that for fixed shapes.
"""

from __future__ import annotations

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

FLOAT = int(ir.DataType.FLOAT)
TAPS = 9


def sampling_grids(offset: Tensor) -> Tensor:
    """The sampling positions of every tap for `grid_sample`.

    Args:
        offset: [N, 18, H, W] displacement of each tap in pixels, (dy, dx) interleaved.

    Returns:
        [N, 9, H, W, 2], dtype of offset: (x, y), from -1 to 1 inside the image, for
        align_corners=False, which an axis of one pixel does not break.
    """
    n, _, h, w = offset.shape
    field = offset.view(n, TAPS, 2, h, w)
    tap = torch.arange(TAPS, device=offset.device).view(TAPS, 1, 1)
    rows = tap // 3 - 1 + torch.arange(h, device=offset.device).view(h, 1)
    columns = tap % 3 - 1 + torch.arange(w, device=offset.device)
    y, x = field[:, :, 0] + rows, field[:, :, 1] + columns
    return torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)


def motion_deform_conv_reference(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, gate: int = 0
) -> Tensor:
    """MotionDeformConv in plain differentiable PyTorch.

    Args:
        x, offset, weight, bias, gate: as for `motion_deform_conv`, on any device; float16 and
            bfloat16 compute in float32.

    Returns:
        [N, C, H, W], with the gate [N, C / 2, H, W]; contiguous, dtype of x.
    """
    compute = torch.promote_types(x.dtype, torch.float32)
    features = x.to(compute, memory_format=torch.channels_last)  # up to 1.5 times faster
    grids = sampling_grids(offset.to(compute))
    taps = weight.to(compute).view(1, -1, TAPS, 1, 1)
    y = bias.to(compute).view(1, -1, 1, 1)
    for tap in range(TAPS):
        sampled = F.grid_sample(features, grids[:, tap], align_corners=False)
        y = torch.addcmul(y, sampled, taps[:, :, tap])
    if gate:
        first, second = y.chunk(2, dim=1)
        y = first * second
    return y.contiguous().to(x.dtype)


@torch.library.custom_op("deblur::motion_deform_conv", mutates_args=())
def motion_deform_conv(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, *, group: int, gate: int = 0
) -> Tensor:
    """Depth-wise 3x3 deformable convolution with offsets shared by all channels, optionally gated.

    Args:
        x: [N, C, H, W] features.
        offset: [N, 18, H, W] displacement of each tap in pixels, (dy, dx) interleaved; zeros
            leave an ordinary 3x3 convolution with zero padding.
        weight: [C, 1, 3, 3].
        bias: [C].
        group: C (depth-wise); kept as an attribute because ONNX convolutions need it static.
        gate: 1 multiplies the two halves of the channels, C is even then; 0 does not.

    Returns:
        [N, C, H, W], with the gate [N, C / 2, H, W]; contiguous, dtype of x.

    Raises:
        ValueError: a shape does not fit, or gate is neither 0 nor 1.
    """
    tensors = (x, offset, weight, bias)
    SPEC.check(*tensors, group=group, gate=gate)
    if gate and group % 2:
        raise ValueError(f"MotionDeformConv: the gate needs pairs of channels, x has {group}")
    if cpu.supports(SPEC, *tensors):
        return cpu.compute(SPEC, *tensors, group=group, gate=gate)
    if cuda.supports(SPEC, *tensors):
        return cuda.compute(SPEC, *tensors, group=group, gate=gate)
    return motion_deform_conv_reference(*tensors, gate)


@motion_deform_conv.register_fake
def _(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, *, group: int, gate: int = 0
) -> Tensor:
    n, c, h, w = x.shape
    return torch.empty((n, c // 2 if gate else c, h, w), dtype=x.dtype, device=x.device)


register_gradient(
    motion_deform_conv,
    lambda x, offset, weight, bias, group, gate: motion_deform_conv_reference(
        x, offset, weight, bias, gate
    ),
)


@register_flop_formula(torch.ops.deblur.motion_deform_conv)
def _flops(x_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    """9 multiply-adds per channel of a pixel, as for an ordinary depth-wise 3x3 convolution."""
    n, c, h, w = x_shape
    return int(2 * TAPS * n * c * h * w)


def _body(target: Target, absent: frozenset[str] = frozenset({"gate"})) -> ir.Function:
    b = FunctionBody(SPEC.inputs, SPEC.attributes, target.opset)
    x, offset, weight, bias, grid = b.inputs
    if target.onnxruntime_bodies:
        y = b.DeformConv(
            b.Cast(x, to=FLOAT),
            b.Cast(weight, to=FLOAT),
            offset,
            b.Cast(bias, to=FLOAT),
            group=b.reference("group"),
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            offset_group=1,
        )
    else:
        y = _grid_sample_body(b, x, offset, weight, bias, grid)
    if "gate" not in absent:
        y = b.Mul(*b.split(y, 2, axis=1))
    return b.function(SPEC.name, [("y", b.CastLike(y, x))], SPEC.doc)


def _grid_sample_body(
    b: FunctionBody,
    x: ir.Value,
    offset: ir.Value,
    weight: ir.Value,
    bias: ir.Value,
    grid: ir.Value,
) -> ir.Value:
    """One GridSample per tap; bench/ops.py compares it with the other formulations.

    In float32 whatever the type of x: TensorRT wants the grid in the type of what it samples.
    """
    features = b.Cast(x, to=FLOAT)
    # Both are float32. onnxslim drops an input that a body does not read, and leaves the nodes as
    # they are, whose inputs are then shifted.
    grids = b.split(b.CastLike(grid, offset), TAPS, axis=0)
    factors = b.Reshape(b.Cast(weight, to=FLOAT), b.ints(0, TAPS, 1))
    weights = b.split(factors, TAPS, axis=1)
    total = b.Reshape(b.Cast(bias, to=FLOAT), b.ints(-1, 1, 1))
    for tap in range(TAPS):
        sampled = b.GridSample(features, b.Squeeze(grids[tap], b.ints(0)), align_corners=0)
        total = b.Add(total, b.Mul(sampled, weights[tap]))
    return total


SPEC = OpSpec(
    name="MotionDeformConv",
    doc="Depth-wise 3x3 deformable convolution; offset [N,18,H,W] as (dy,dx) a tap, in pixels. "
    "With gate = 1 the product of the two halves of its channels.",
    about=__doc__,
    source="M2AENet, Sec. 3.3; sampling: Dai et al., Deformable Convolutional Networks, ICCV 2017, "
    "arXiv:1703.06211, Eq. 2-4, as in ONNX DeformConv and torchvision",
    torch_op=torch.ops.deblur.motion_deform_conv.default,
    inputs={
        "x": TensorSpec("T", "N, C, H, W", "features", channels_last=True),
        "offset": TensorSpec(
            "tensor(float)",
            "N, 18, H, W",
            "displacement of each tap in pixels, (dy, dx) interleaved",
            fp32=POSITIONS,
        ),
        "weight": TensorSpec("T", "C, 1, 3, 3", "weights of the convolution"),
        "bias": TensorSpec("T", "C", "added to each channel before the gate"),
        "grid": TensorSpec(
            "tensor(float)",
            "9, N, H, W, 2",
            "the result of SamplingGrid for offset, which the GridSample body needs; the torch op "
            "has no such argument",
            fp32=POSITIONS,
            optional=True,
        ),
    },
    outputs={"y": TensorSpec("T", "N, C / (1 + gate), H, W", "the filtered features")},
    attributes={
        "group": AttributeSpec("number of channels of x", equals="C"),
        "gate": AttributeSpec(
            "1 multiplies the two halves of the channels", values=(0, 1), optional=True
        ),
    },
    body=_body,
    bodies={
        "ort": "DeformConv in float32",
        "portable, openvino, rtx": "for each tap one GridSample of x at the positions in grid",
    },
    specialize=_body,
    cpu=NativeFunction(
        "deblur_motion_deform_conv", "layout x offset plan weight bias y n c h w gate threads"
    ),
    cuda=NativeFunction(
        "deblur_cuda_motion_deform_conv",
        "type x offset weight bias y n c h w gate workspace workspace_bytes stream",
        workspace="type n c h w gate",
    ),
    torch_on_cpu=True,
)

SPECS = (SPEC,)
