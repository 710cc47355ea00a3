"""Filtering of every channel of every image with a kernel of its own.

    y[n, c, i, j] = sum of weight[n, c, k dy + dx] x[n, c, i + dy - k//2, j + dx - k//2]

over dy, dx = 0 .. k-1; k is 3 or 5, as the name says. The image is mirrored at its border without
repeating the last pixel; where the border is wider than the image, which `nn.ReflectionPad2d`
refuses, it is mirrored again and again. This is the dynamic low-pass filter of FSNet's decoupler,
which AIBNet uses.

A grouped convolution with computed weights needs the number of its groups, here images times
channels, as a constant of the file, and TensorRT has none. The body for ONNX Runtime therefore
convolves the images one by one. The others shift along the rows by a convolution with one-hot
filters, weigh by a small matrix product per row of the filter, and add up the vertical shifts by a
second one-hot convolution. That takes a fraction of the layers that k*k shifted slices do.

The PyTorch op computes float16 and bfloat16 in float32.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.libraries import cuda
from deblur_export.plugins.ops.gradient import register_gradient
from deblur_export.plugins.parameters import AttributeSpec, NativeFunction, TensorSpec
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target

KERNELS = (3, 5)


def mirror_index(size: int, margin: int) -> Tensor:
    """Indices [size + 2*margin] of the pixels -margin .. size + margin - 1 of a mirrored axis."""
    span = 2 * (size - 1)
    phase = torch.arange(-margin, size + margin) % max(span, 1)
    return torch.minimum(phase, span - phase)


def dynamic_filter_reference(x: Tensor, weight: Tensor, kernel: int) -> Tensor:
    """DynamicFilter in plain differentiable PyTorch.

    Args:
        x: [N, C, H, W]; float16 and bfloat16 compute in float32.
        weight: [N, C, kernel*kernel], row-major.
        kernel: side of the filters in pixels, odd.

    Returns:
        [N, C, H, W], dtype of x.
    """
    n, c, h, w = x.shape
    compute = torch.promote_types(x.dtype, torch.float32)
    rows, columns = (mirror_index(size, kernel // 2).to(x.device) for size in (h, w))
    mirrored = x.to(compute).index_select(2, rows).index_select(3, columns)
    filters = weight.to(compute).reshape(n * c, 1, kernel, kernel)
    y = F.conv2d(mirrored.reshape(1, n * c, *mirrored.shape[2:]), filters, groups=n * c)
    return y.view(n, c, h, w).to(x.dtype)


def _define(kernel: int) -> Any:
    """The torch op for one filter size, with its fake, gradient and flop formula.

    Its arguments:
        x: [N, C, H, W]; float16 and bfloat16 compute in float32.
        weight: [N, C, k*k], row-major.
        group: C; an attribute because ONNX convolutions need it static.

    It returns [N, C, H, W], contiguous, dtype of x, and raises ValueError where a shape does not
    fit.
    """
    taps = kernel * kernel

    @torch.library.custom_op(f"deblur::dynamic_filter{kernel}", mutates_args=())
    def op(x: Tensor, weight: Tensor, *, group: int) -> Tensor:
        spec = SPECS[KERNELS.index(kernel)]
        spec.check(x, weight, group=group)
        if cuda.supports(spec, x, weight):
            return cuda.compute(spec, x, weight, group=group)
        return dynamic_filter_reference(x, weight, kernel).clone()

    @op.register_fake
    def _(x: Tensor, weight: Tensor, *, group: int) -> Tensor:
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    @register_flop_formula(op._opoverload.overloadpacket)
    def _flops(x_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
        """k*k multiply-adds per output value, as for an ordinary depth-wise convolution."""
        n, c, h, w = x_shape
        return int(2 * taps * n * c * h * w)

    register_gradient(op, lambda x, weight, group: dynamic_filter_reference(x, weight, kernel))
    return op


DYNAMIC_FILTER = {kernel: _define(kernel) for kernel in KERNELS}


def _mirror(b: FunctionBody, x: ir.Value, axis: int, margin: int) -> ir.Value:
    """x with its mirrored borders along one axis; only the borders are gathered."""
    size = b.size(x, axis)
    span = b.Mul(b.Sub(size, b.ints(1)), b.ints(2))
    period = b.Max(span, b.ints(1))
    before = b.ints(*range(margin, 0, -1))  # -2, -1 mirrored at 0
    after = b.Add(b.ints(*range(margin)), size)
    parts = [x]
    for position in (before, after):
        phase = b.Mod(position, period)
        parts.append(b.Gather(x, b.Min(phase, b.Sub(span, phase)), axis=axis))
    return b.Concat(parts[1], parts[0], parts[2], axis=axis)


def _images(b: FunctionBody, x: ir.Value, weight: ir.Value, kernel: int) -> ir.Value:
    """One grouped convolution per image."""
    filters = b.Reshape(weight, b.ints(0, 0, 1, kernel, kernel))
    body = b.branch("image", ("x", "filters"))
    image, own = body.inputs
    first = body.ints(0)
    y = body.Conv(
        body.Unsqueeze(image, first),
        own,
        group=b.reference("group"),
        kernel_shape=[kernel, kernel],
    )
    return b.Scan(x, filters, body=body.graph(body.Squeeze(y, first)), num_scan_inputs=2)


def _shifts(b: FunctionBody, x: ir.Value, weight: ir.Value, kernel: int) -> ir.Value:
    """Shift along the rows, weigh, shift along the columns; channels are images of one channel."""
    one_hot = np.eye(kernel)
    size = b.Shape(x, start=2, end=4)
    channels = b.Reshape(x, b.Concat(b.ints(-1, 1), size, axis=0))
    to_right = b.CastLike(b.floats(one_hot.reshape(kernel, 1, 1, kernel)), x)
    down = b.CastLike(b.floats(one_hot.reshape(1, kernel, kernel, 1)), x)
    shifted = b.Conv(channels, to_right, kernel_shape=[1, kernel])
    rows = b.Reshape(shifted, b.ints(0, kernel, -1))
    weighed = b.MatMul(b.Reshape(weight, b.ints(-1, kernel, kernel)), rows)
    return b.Conv(b.Reshape(weighed, b.Shape(shifted)), down, kernel_shape=[kernel, 1])


def _body(kernel: int, target: Target) -> ir.Function:
    b = FunctionBody(("x", "weight"), ("group",), target.opset)
    x, weight = b.inputs
    mirrored = _mirror(b, _mirror(b, x, 2, kernel // 2), 3, kernel // 2)
    y = (_images if target.onnxruntime_bodies else _shifts)(b, mirrored, weight, kernel)
    if not target.onnxruntime_bodies:
        y = b.Reshape(y, b.Shape(x))
    spec = SPECS[KERNELS.index(kernel)]
    return b.function(spec.name, [("y", y)], spec.doc)


SPECS = tuple(
    OpSpec(
        name=f"DynamicFilter{kernel}",
        doc=f"Filters each channel of each image with its own {kernel} x {kernel} filter, weight "
        f"[N,C,{kernel * kernel}], mirrored at the border.",
        about=__doc__,
        source="Cui et al., Image Restoration via Frequency Selection, TPAMI 2024 (FSNet)",
        torch_op=DYNAMIC_FILTER[kernel]._opoverload,
        inputs={
            "x": TensorSpec("T", "N, C, H, W", "features"),
            "weight": TensorSpec("T", "N, C, kernel*kernel", "filters, row-major"),
        },
        outputs={"y": TensorSpec("T", "N, C, H, W", "the filtered features")},
        attributes={"group": AttributeSpec("number of channels", equals="C")},
        body=functools.partial(_body, kernel),
        bodies={
            "ort": "a Scan over the images with one grouped convolution",
            "portable, openvino, rtx": "one-hot convolution, matrix product, one-hot convolution",
        },
        constants={"kernel": kernel},
        cpu=NativeFunction("deblur_dynamic_filter", "x weight y planes h w kernel threads"),
        cuda=NativeFunction(
            "deblur_cuda_dynamic_filter", "type x weight y planes h w kernel stream"
        ),
    )
    for kernel in KERNELS
)
