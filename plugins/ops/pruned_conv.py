"""The first half of a mask-aware block, computed only where the mask asks for it.

    y[p] = gate(dw3x3(1x1(x)))[p]   where mask[p] > 0.5
    y[p] = x[p] * x[p]              elsewhere        (the gate of the repeated input)

gate is the product of the two halves of the channels (NAFNet's SimpleGate). A masked pixel needs
the result of the 1x1 convolution in its 3x3 neighbourhood, so that convolution runs on the dilated
mask. Outside the image its result is zero (the padding of the depth-wise convolution), not its
bias.

The native kernels gather the masked pixels, whatever their number. The body for ONNX Runtime does
so up to a coverage of 35 % of the dilated mask; the others compute every pixel and select, because
TensorRT and OpenVINO want shapes that do not depend on data. The CPU kernel also takes x and y with
the channels last, as float32 or bfloat16; OpenVINO uses that for fixed shapes.

The op serves inference only: it has no gradient.
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
from deblur_export.plugins.parameters import AttributeSpec, NativeFunction, TensorSpec
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target

TAPS = 9
# Fraction of pixels in the dilated mask up to which gathering is used, in PyTorch and ONNX Runtime
# on the CPU. Gathering is faster up to about 45 % at 256 channels; at 64 channels only up to 20 %
# (ONNX Runtime) and 5 % (PyTorch), and what is lost in between is a millisecond at most
# (bench/README.md). The native kernel has no such limit: with every pixel masked it is as fast as
# the dense form.
BREAK_EVEN = 0.35


def pruned_conv_reference(
    x: Tensor, mask: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """PrunedConv as the dense masked network computes it; differentiable in x and the weights.

    Args:
        x, mask, weight1, bias1, weight2, bias2: as for `pruned_conv`, on any device.

    Returns:
        [N, C, H, W], dtype of x.
    """
    hidden = F.conv2d(x, weight1, bias1)
    hidden = F.conv2d(hidden, weight2, bias2, padding=1, groups=weight2.shape[0])
    first, second = hidden.chunk(2, dim=1)
    return torch.where(mask > 0.5, first * second, x * x)


def _pruned_rows(
    x: Tensor, mask: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """PrunedConv by gather -> 1x1 -> indexed depth-wise 3x3 -> gate -> scatter."""
    n, c, h, w = x.shape
    masked = mask > 0.5
    dilated = F.max_pool2d(masked.to(torch.float32), 3, stride=1, padding=1) > 0.5
    pixels = masked.flatten().nonzero().squeeze(1)
    neighbours = dilated.flatten().nonzero().squeeze(1)

    rows = x.permute(0, 2, 3, 1).reshape(-1, c)
    hidden = F.linear(rows[neighbours], weight1.flatten(1), bias1)
    hidden = F.pad(hidden, (0, 0, 1, 0))  # row 0 is the zero padding of the depth-wise conv
    slot = torch.zeros(n, h + 2, w + 2, dtype=torch.int64, device=x.device)
    slot[:, 1:-1, 1:-1][dilated[:, 0]] = torch.arange(1, len(neighbours) + 1, device=x.device)

    taps = weight2.flatten(1)
    total = bias2.expand(len(pixels), -1)
    for tap in range(TAPS):
        dy, dx = divmod(tap, 3)
        where = slot[:, dy : dy + h, dx : dx + w].flatten()[pixels]
        total = torch.addcmul(total, hidden[where], taps[:, tap])
    first, second = total.chunk(2, dim=1)
    y = (rows * rows).index_copy(0, pixels, first * second)
    return y.view(n, h, w, c).permute(0, 3, 1, 2).contiguous()


@torch.library.custom_op("deblur::pruned_conv", mutates_args=())
def pruned_conv(
    x: Tensor,
    mask: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    group: int,
) -> Tensor:
    """Gated 1x1 + depth-wise 3x3 at masked pixels, x*x elsewhere. Inference only.

    Args:
        x: [N, C, H, W] normalized features.
        mask: [N, 1, H, W], dtype of x; above 0.5 means computed.
        weight1, bias1: the 1x1 convolution, [2C, C, 1, 1] and [2C].
        weight2, bias2: the depth-wise convolution, [2C, 1, 3, 3] and [2C].
        group: 2C, as an attribute because ONNX convolutions need it static.

    Returns:
        [N, C, H, W], contiguous, dtype of x.

    Raises:
        ValueError: a shape does not fit.
    """
    tensors = (x, mask, weight1, bias1, weight2, bias2)
    SPEC.check(*tensors, group=group)
    if cpu.supports(SPEC, *tensors):
        return cpu.compute(SPEC, *tensors, group=group)
    if cuda.supports(SPEC, *tensors):
        return cuda.compute(SPEC, *tensors, group=group)
    dilated = F.max_pool2d(mask.to(torch.float32), 3, stride=1, padding=1) > 0.5
    dense = dilated.sum().item() > BREAK_EVEN * dilated.numel()
    form = pruned_conv_reference if dense else _pruned_rows
    return form(*tensors).contiguous()


@pruned_conv.register_fake
def _(
    x: Tensor,
    mask: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    group: int,
) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@register_flop_formula(torch.ops.deblur.pruned_conv)
def _flops(x_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    """Dense count (every pixel masked): the 1x1 C->2C and the depth-wise 3x3 on 2C channels."""
    n, c, h, w = x_shape
    return int(2 * n * h * w * (2 * c * c + 2 * c * TAPS))


def _body(target: Target) -> ir.Function:
    b = FunctionBody(SPEC.inputs, SPEC.attributes, target.opset)
    x, mask, weight1, bias1, weight2, bias2 = b.inputs
    masked = b.Greater(mask, b.CastLike(b.floats(0.5), mask))
    weights = (weight1, bias1, weight2, bias2)
    if not target.onnxruntime_bodies:
        y = _dense_body(b, x, masked, weights, b.reference("group"))
    else:
        as_float = b.Cast(masked, to=int(ir.DataType.FLOAT))
        dilated = b.MaxPool(as_float, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        coverage = b.ReduceMean(dilated, keepdims=0)
        pruned, dense = b.branch("pruned"), b.branch("dense")
        group = b.reference("group")
        y = b.If(
            b.Less(coverage, b.floats(BREAK_EVEN)),
            then_branch=pruned.graph(_rows_body(pruned, x, masked, dilated, weights)),
            else_branch=dense.graph(_dense_body(dense, x, masked, weights, group)),
        )
    return b.function(SPEC.name, [("y", y)], SPEC.doc)


def _dense_body(
    b: FunctionBody, x: ir.Value, masked: ir.Value, weights: tuple[ir.Value, ...], group: ir.Attr
) -> ir.Value:
    """No data-dependent shape: runs on every backend, saves nothing."""
    weight1, bias1, weight2, bias2 = weights
    hidden = b.Conv(x, weight1, bias1, kernel_shape=[1, 1])
    hidden = b.Conv(hidden, weight2, bias2, group=group, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    first, second = b.split(hidden, 2, axis=1)
    return b.Where(masked, b.Mul(first, second), b.Mul(x, x))


def _rows_body(
    b: FunctionBody,
    x: ir.Value,
    masked: ir.Value,
    dilated: ir.Value,
    weights: tuple[ir.Value, ...],
) -> ir.Value:
    """`_pruned_rows` in standard operators."""
    weight1, bias1, weight2, bias2 = weights
    int64 = int(ir.DataType.INT64)

    def indices(flags: ir.Value) -> ir.Value:
        return b.Squeeze(b.NonZero(b.Reshape(flags, b.ints(-1))), b.ints(0))

    pixels = indices(masked)
    nhwc = b.Transpose(x, perm=[0, 2, 3, 1])
    rows = b.Reshape(nhwc, b.Concat(b.ints(-1), b.size(x, 1), axis=0))
    matrix = b.Transpose(b.Reshape(weight1, b.ints(0, -1)), perm=[1, 0])
    hidden = b.Add(b.MatMul(b.Gather(rows, indices(dilated), axis=0), matrix), bias1)
    padding = b.Unsqueeze(b.Sub(bias1, bias1), b.ints(0))
    hidden = b.Concat(padding, hidden, axis=0)

    flags = b.Cast(dilated, to=int64)
    count = b.CumSum(b.Reshape(flags, b.ints(-1)), b.scalar(0))
    slot = b.Mul(b.Reshape(count, b.Shape(flags)), flags)
    slot = b.Pad(slot, b.ints(0, 0, 1, 1, 0, 0, 1, 1))
    height, width = b.size(x, 2), b.size(x, 3)
    by_tap = b.Transpose(b.Reshape(weight2, b.ints(0, -1)), perm=[1, 0])
    taps = b.split(by_tap, TAPS, axis=0)
    total = bias2
    for tap in range(TAPS):
        dy, dx = divmod(tap, 3)
        start = b.ints(dy, dx)
        window = b.Slice(slot, start, b.Add(start, b.Concat(height, width, axis=0)), b.ints(2, 3))
        where = b.Gather(b.Reshape(window, b.ints(-1)), pixels, axis=0)
        total = b.Add(total, b.Mul(b.Gather(hidden, where, axis=0), taps[tap]))
    first, second = b.split(total, 2, axis=1)
    y = b.ScatterND(b.Mul(rows, rows), b.Unsqueeze(pixels, b.ints(1)), b.Mul(first, second))
    return b.Transpose(b.Reshape(y, b.Shape(nhwc)), perm=[0, 3, 1, 2])


SPEC = OpSpec(
    name="PrunedConv",
    doc="gate(dw3x3(1x1(x))) where mask > 0.5, x*x elsewhere; gate multiplies channel halves.",
    about=__doc__,
    source="M2AENet, Eq. 5; gate: Chen et al., Simple Baselines for Image Restoration (NAFNet), "
    "ECCV 2022, arXiv:2204.04676",
    torch_op=torch.ops.deblur.pruned_conv.default,
    inputs={
        "x": TensorSpec("T", "N, C, H, W", "normalized features", channels_last=True),
        "mask": TensorSpec("T", "N, 1, H, W", "above 0.5: the pixel is computed"),
        "weight1": TensorSpec("T", "2*C, C, 1, 1", "weights of the 1x1 convolution"),
        "bias1": TensorSpec("T", "2*C", "its bias"),
        "weight2": TensorSpec("T", "2*C, 1, 3, 3", "weights of the depth-wise convolution"),
        "bias2": TensorSpec("T", "2*C", "its bias"),
    },
    outputs={"y": TensorSpec("T", "N, C, H, W", "the gated features")},
    attributes={
        "group": AttributeSpec("number of channels of the depth-wise convolution", equals="2*C")
    },
    body=_body,
    bodies={
        "ort": "an If on the coverage: gathered rows or the dense form",
        "portable, openvino, rtx": "the dense form: two convolutions of every pixel, then Where",
    },
    cpu=NativeFunction(
        "deblur_pruned_conv", "layout x mask weight1 bias1 weight2 bias2 y n c h w threads"
    ),
    cuda=NativeFunction(
        "deblur_cuda_pruned_conv",
        "type x mask weight1 bias1 weight2 bias2 y n c h w workspace workspace_bytes stream",
        workspace="type n c h w",
    ),
    torch_on_cpu=True,
)

SPECS = (SPEC,)
