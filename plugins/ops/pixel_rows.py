"""Listed pixels of a feature map as rows of a matrix, and back.

PixelGather copies the kernel x kernel neighbourhood of each listed pixel into one row, tap by tap:
all channels of tap 0, then all of tap 1, and so on; zeros outside the image. With kernel 3 this is
the unfold that turns a 3x3 convolution at masked pixels into one matrix product. PixelScatter is a
copy of a feature map in which the listed pixels are replaced by rows.

A pixel index is n*H*W + y*W + x. Nothing is computed, so both are exact in every precision.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.libraries import cuda
from deblur_export.plugins.parameters import AttributeSpec, NativeFunction, TensorSpec
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target


@torch.library.custom_op("deblur::pixel_gather", mutates_args=())
def pixel_gather(x: Tensor, index: Tensor, kernel: int) -> Tensor:
    """The k x k neighbourhood of each listed pixel as one row.

    Args:
        x: [N, C, H, W].
        index: [P] int64, pixel indices n*H*W + y*W + x.
        kernel: side of the neighbourhood in pixels, 1 or 3; outside the image counts as zero.

    Returns:
        [P, kernel*kernel*C], dtype of x; all channels of tap 0, then of tap 1, ...

    Raises:
        ValueError: kernel is neither 1 nor 3, or a shape does not fit.
    """
    PIXEL_GATHER.check(x, index, kernel=kernel)
    if cuda.supports(PIXEL_GATHER, x, index):
        return cuda.compute(PIXEL_GATHER, x, index, kernel=kernel)
    h, w = x.shape[2:]
    r = kernel // 2
    padded = F.pad(x, (r, r, r, r)).permute(0, 2, 3, 1)
    image, pixel = index // (h * w), index % (h * w)
    y, column = pixel // w, pixel % w
    taps = [padded[image, y + dy, column + dx] for dy in range(kernel) for dx in range(kernel)]
    return torch.cat(taps, dim=1)


@pixel_gather.register_fake
def _(x: Tensor, index: Tensor, kernel: int) -> Tensor:
    return x.new_empty(index.shape[0], kernel * kernel * x.shape[1])


@torch.library.custom_op("deblur::pixel_scatter", mutates_args=())
def pixel_scatter(base: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """A copy of base with the listed pixels replaced.

    Args:
        base: [N, C, H, W].
        index: [P] int64, pixel indices n*H*W + y*W + x, each at most once.
        rows: [P, C], dtype of base.

    Returns:
        [N, C, H, W], contiguous, dtype of base.

    Raises:
        ValueError: a shape does not fit.
    """
    PIXEL_SCATTER.check(base, index, rows)
    if cuda.supports(PIXEL_SCATTER, base, index, rows):
        return cuda.compute(PIXEL_SCATTER, base, index, rows)
    n, c, h, w = base.shape
    flat = base.permute(0, 2, 3, 1).reshape(-1, c).index_copy(0, index, rows)
    return flat.view(n, h, w, c).permute(0, 3, 1, 2).contiguous()


@pixel_scatter.register_fake
def _(base: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    return base.new_empty(base.shape)


def _gather_body(target: Target) -> ir.Function:
    b = FunctionBody(("x", "index"), ("kernel",), target.opset)
    x, index = b.inputs
    kernel = b.Constant(value_int=b.reference("kernel", "value_int"))
    radius = b.Reshape(b.Div(kernel, b.scalar(2)), b.ints(1))
    none = b.ints(0, 0)
    pads = b.Concat(none, radius, radius, none, radius, radius, axis=0)
    padded = b.Transpose(b.Pad(x, pads), perm=[0, 2, 3, 1])
    height, width = b.size(x, 2), b.size(x, 3)
    area = b.Mul(height, width)
    pixel = b.Mod(index, area)
    padded_width, padded_height = b.size(padded, 2), b.size(padded, 1)
    origin = b.Add(
        b.Mul(b.Add(b.Mul(b.Div(index, area), padded_height), b.Div(pixel, width)), padded_width),
        b.Mod(pixel, width),
    )
    step = b.Range(b.scalar(0), kernel, b.scalar(1))
    offsets = b.Add(b.Mul(b.Unsqueeze(step, b.ints(1)), padded_width), step)
    where = b.Add(b.Unsqueeze(origin, b.ints(1)), b.Reshape(offsets, b.ints(1, -1)))
    rows = b.Reshape(padded, b.Concat(b.ints(-1), b.size(x, 1), axis=0))
    taps = b.Gather(rows, where, axis=0)
    width_of_row = b.Mul(b.Mul(kernel, kernel), b.size(x, 1))
    shape = b.Concat(b.Shape(index), width_of_row, axis=0)
    return b.function("PixelGather", [("rows", b.Reshape(taps, shape))], PIXEL_GATHER.doc)


def _scatter_body(target: Target) -> ir.Function:
    b = FunctionBody(("base", "index", "rows"), (), target.opset)
    base, index, rows = b.inputs
    nhwc = b.Transpose(base, perm=[0, 2, 3, 1])
    flat = b.Reshape(nhwc, b.Concat(b.ints(-1), b.size(base, 1), axis=0))
    flat = b.ScatterND(flat, b.Unsqueeze(index, b.ints(1)), rows)
    y = b.Transpose(b.Reshape(flat, b.Shape(nhwc)), perm=[0, 3, 1, 2])
    return b.function("PixelScatter", [("y", y)], PIXEL_SCATTER.doc)


PIXEL_GATHER = OpSpec(
    name="PixelGather",
    doc="Rows [P, kernel*kernel*C] of the pixels listed in index [P]; zero outside the image.",
    about=__doc__,
    source="M2AENet, Sec. 3.2 (mask-aware convolution by reparameterization)",
    torch_op=torch.ops.deblur.pixel_gather.default,
    inputs={
        "x": TensorSpec("T", "N, C, H, W", "features"),
        "index": TensorSpec("tensor(int64)", "P", "pixel indices n*H*W + y*W + x"),
    },
    outputs={"rows": TensorSpec("T", "P, kernel*kernel*C", "one row per listed pixel")},
    attributes={"kernel": AttributeSpec("side of the neighbourhood in pixels", values=(1, 3))},
    body=_gather_body,
    bodies={"portable, ort, openvino, rtx": "one Gather from the padded image"},
    cpu=NativeFunction("deblur_pixel_gather", "x index rows n c h w pixels kernel threads"),
    cuda=NativeFunction(
        "deblur_cuda_pixel_gather", "type x index rows n c h w pixels kernel stream"
    ),
)

PIXEL_SCATTER = OpSpec(
    name="PixelScatter",
    doc="base [N,C,H,W] with the pixels listed in index [P] replaced by rows [P,C].",
    about=__doc__,
    source=PIXEL_GATHER.source,
    torch_op=torch.ops.deblur.pixel_scatter.default,
    inputs={
        "base": TensorSpec("T", "N, C, H, W", "features"),
        "index": TensorSpec(
            "tensor(int64)", "P", "pixel indices n*H*W + y*W + x, each at most once"
        ),
        "rows": TensorSpec("T", "P, C", "the new features of the listed pixels"),
    },
    outputs={"y": TensorSpec("T", "N, C, H, W", "base with the listed pixels replaced")},
    body=_scatter_body,
    bodies={"portable, ort, openvino, rtx": "one ScatterND into the image with channels last"},
    cpu=NativeFunction("deblur_pixel_scatter", "base index rows y n c h w pixels threads"),
    cuda=NativeFunction(
        "deblur_cuda_pixel_scatter", "type base index rows y n c h w pixels stream"
    ),
)

SPECS = (PIXEL_GATHER, PIXEL_SCATTER)
