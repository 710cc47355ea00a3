"""Mean over a window around each pixel: the pooling of TLC.

    k_h = min(k, H), k_w = min(k, W)
    m[i, j] = mean of x[i : i + k_h, j : j + k_w]          (stride 1, no padding)
    y = m with its border repeated back to H x W, floor((H - H') / 2) rows above, the rest below

An image no larger than the window gets its global mean everywhere. k is 3, 6, 12, ... 384: the
window of TLC is 1.5 times the training crop. Exported files have it in the name of the op
(LocalMean384), because each window has a body of its own.

The official code subtracts cumulative sums, which grow with the image: inexact in float32, infinite
in float16, and a sequential loop in TensorRT. Here a window is put together from windows of half
the size, m_2n[i] = (m_n[i] + m_n[i + n]) / 2, so that no value leaves the range of x and an axis
costs log2(k) additions. Small images are padded with zeros up to the window and the mean is
rescaled, so that one graph serves every size. All of it is computed in float32.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.libraries import cuda
from deblur_export.plugins.parameters import AttributeSpec, NativeFunction, TensorSpec
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target

FLOAT = int(ir.DataType.FLOAT)
END = 2**62
NEAR = 24
DOUBLINGS = 7
WINDOWS = tuple(3 * 2**m for m in range(DOUBLINGS + 1))


def box_mean(x: Tensor, kernel: int, dim: int) -> Tensor:
    """Mean over `kernel` (one of `WINDOWS`) consecutive entries along dimension `dim` of x.

    Its length n becomes n - kernel + 1; where x is shorter than the window, the result is the mean
    of all entries, length 1.
    """
    size = x.shape[dim]
    if size < kernel:
        return x.mean(dim, keepdim=True)
    n = size - 2
    mean = (x.narrow(dim, 0, n) + x.narrow(dim, 1, n) + x.narrow(dim, 2, n)) / 3
    width = 3
    while width < kernel:
        n -= width
        mean = (mean.narrow(dim, 0, n) + mean.narrow(dim, width, n)) / 2
        width *= 2
    return mean


@torch.library.custom_op("deblur::local_mean", mutates_args=())
def local_mean(x: Tensor, *, kernel: int) -> Tensor:
    """Mean over a window of kernel x kernel pixels, which the image's own size limits.

    Args:
        x: [N, C, H, W]; float16 and bfloat16 compute in float32.
        kernel: side of the window in pixels, one of 3, 6, 12, ... 384.

    Returns:
        [N, C, H, W], dtype of x.

    Raises:
        ValueError: another window, or x has another number of dimensions.
    """
    SPEC.check(x, kernel=kernel)
    if cuda.supports(SPEC, x):
        return cuda.compute(SPEC, x, kernel=kernel)
    height, width = x.shape[2:]
    mean = x.to(torch.promote_types(x.dtype, torch.float32))
    for dim in (2, 3):
        mean = box_mean(mean, kernel, dim)
    down, right = height - mean.shape[2], width - mean.shape[3]
    border = (right // 2, right - right // 2, down // 2, down - down // 2)
    return F.pad(mean, border, mode="replicate").to(x.dtype)


@local_mean.register_fake
def _(x: Tensor, *, kernel: int) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@register_flop_formula(torch.ops.deblur.local_mean)
def _flops(x_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    """No products that a multiply-add count would list."""
    return 0


def _slices(b: FunctionBody, x: ir.Value, kernel: int) -> ir.Value:
    """`box_mean` along both axes by sums of shifted slices: fewer products, for ONNX Runtime."""
    mean = x
    for axis in (2, 3):
        axes = b.ints(axis)
        parts = [b.Slice(mean, b.ints(s), b.ints(s - 2 or END), axes) for s in range(3)]
        total = b.Add(b.Add(parts[0], parts[1]), parts[2])
        mean = b.Mul(total, b.floats(1 / 3))
        width = 3
        while width < kernel:
            first = b.Slice(mean, b.ints(0), b.ints(-width), axes)
            second = b.Slice(mean, b.ints(width), b.ints(END), axes)
            mean = b.Mul(b.Add(first, second), b.floats(0.5))
            width *= 2
    return mean


def _convolutions(b: FunctionBody, x: ir.Value, kernel: int) -> ir.Value:
    """Along each axis a convolution over up to 24 neighbours, then one over every 24th value: 20
    layers in TensorRT, where slices of dynamic size become a thousand."""
    size = b.Shape(x, start=2, end=4)
    mean = b.Reshape(x, b.Concat(b.ints(-1, 1), size, axis=0))  # channels as images
    near = min(kernel, NEAR)
    for axis in (0, 1):
        for taps, step in ((near, 1), (kernel // near, near)):
            shape, dilations = [1, 1], [1, 1]
            shape[axis], dilations[axis] = taps, step
            weight = b.floats(np.full((1, 1, *shape), 1 / taps))
            mean = b.Conv(mean, weight, kernel_shape=shape, dilations=dilations)
    outer = b.Concat(b.Shape(x, start=0, end=2), b.Shape(mean, start=2, end=4), axis=0)
    return b.Reshape(mean, outer)


def _body(kernel: int, target: Target) -> ir.Function:
    b = FunctionBody(("x",), (), target.opset)
    x = b.Cast(b.inputs[0], to=FLOAT)
    window = b.ints(kernel)
    size = b.Shape(x, start=2, end=4)
    missing = b.Max(b.Sub(window, size), b.ints(0))
    filled = b.Pad(x, b.Concat(b.ints(0, 0, 0, 0, 0, 0), missing, axis=0))
    mean = (_slices if target.onnxruntime_bodies else _convolutions)(b, filled, kernel)
    fraction = b.Div(b.Cast(window, to=FLOAT), b.Cast(b.Min(window, size), to=FLOAT))
    mean = b.Mul(mean, b.ReduceProd(fraction, b.ints(0), keepdims=0))
    border = b.Sub(size, b.Shape(mean, start=2, end=4))
    before = b.Div(border, b.ints(2))
    none = b.ints(0, 0)
    pads = b.Concat(none, before, none, b.Sub(border, before), axis=0)
    y = b.CastLike(b.Pad(mean, pads, mode="edge"), b.inputs[0])
    return b.function(f"LocalMean{kernel}", [("y", y)], SPEC.doc)


SPEC = OpSpec(
    name="LocalMean",
    doc="Mean over a window of kernel x kernel pixels around each pixel, borders repeated (TLC).",
    about=__doc__,
    source="Chu et al., Improving Image Restoration by Revisiting Global Information Aggregation, "
    "ECCV 2022, arXiv:2112.04491, Sec. 3",
    torch_op=torch.ops.deblur.local_mean.default,
    inputs={"x": TensorSpec("T", "N, C, H, W", "features")},
    outputs={"y": TensorSpec("T", "N, C, H, W", "the mean around each pixel")},
    attributes={"kernel": AttributeSpec("side of the window in pixels", values=WINDOWS)},
    body=None,
    cpu=NativeFunction("deblur_local_mean", "x y planes h w kernel threads"),
    cuda=NativeFunction(
        "deblur_cuda_local_mean",
        "type x y planes h w kernel workspace workspace_bytes stream",
        workspace="planes h w",
    ),
    tensorrt=False,
)

# The body depends on the window, and a function cannot branch on its attribute without leaving the
# branches in the graph: one op per window, which passes/name_windows.py puts in place of SPEC's.
WINDOW_SPECS = tuple(
    replace(
        SPEC,
        name=f"LocalMean{kernel}",
        doc=SPEC.doc.replace("kernel", str(kernel)),
        torch_op=None,
        attributes={},
        constants={"kernel": kernel},
        body=functools.partial(_body, kernel),
        bodies={
            "ort": "sums of shifted slices, each window from two of half the size",
            "portable, openvino, rtx": "two convolutions along each axis, the second one dilated",
        },
        tensorrt=True,
    )
    for kernel in WINDOWS
)

SPECS = (SPEC, *WINDOW_SPECS)
