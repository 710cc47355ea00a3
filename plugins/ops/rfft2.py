"""Discrete Fourier transforms of the last two axes, real and imaginary part as two tensors.

    RFFT2:   X[j, k] = s sum_{h,w} x[h, w] exp(-2 pi i (jh/H + kw/W)),   k = 0 .. W // 2, or all k
    IRFFT2:  its inverse for a given width, which may be odd
    FFT2:    complex to complex, all k; the inverse has the other sign in the exponent

s is 1 for norm 0, 1 / sqrt(H W) for norm 1 and 1 / (H W) for norm 2: "backward", "ortho" and
"forward" of torch for a transform, and the other way round for its inverse.

The bodies are matrix products with cosines and sines, first along the rows, then along the columns.
They are made in the graph from the sizes, with angles reduced as integers to half a turn; where the
sizes are known the runtimes fold them into constants. The scale s is part of the first matrix, so
that no sum exceeds its result. No body has a DFT node: TensorRT does not know it, and OpenVINO
refuses a spectrum whose numbers are used.

The spectrum is float32 in every file: it is a sum over the image.
"""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.parameters import SPECTRUM, AttributeSpec, TensorSpec
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target

FLOAT = int(ir.DataType.FLOAT)
NORMS = ("backward", "ortho", "forward")
SOURCE = "Cooley and Tukey, 1965, Eq. 1 (the sums); torch.fft (norms, shapes)"


@torch.library.custom_op("deblur::rfft2", mutates_args=())
def rfft2(x: Tensor, *, norm: int, onesided: int) -> tuple[Tensor, Tensor]:
    """`torch.fft.rfft2` or `fft2` of real images, its real and its imaginary part.

    Args:
        x: [N, C, H, W]; float16 and bfloat16 compute in float32.
        norm: 0 for sums, 1 for sums / sqrt(H W), 2 for sums / (H W).
        onesided: 1 for the columns 0 .. W // 2, of which the others are conjugates; 0 for all.

    Returns:
        Two of [N, C, H, K], K = W // 2 + 1 or W, float32 (float64 for float64 x).

    Raises:
        ValueError: another norm, or x has another number of dimensions.
    """
    RFFT2.check(x, norm=norm, onesided=onesided)
    transform = torch.fft.rfft2 if onesided else torch.fft.fft2
    return _parts(transform(_wide(x), norm=NORMS[norm]))


@rfft2.register_fake
def _(x: Tensor, *, norm: int, onesided: int) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:3], x.shape[3] // 2 + 1 if onesided else x.shape[3])
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(shape, dtype=dtype), x.new_empty(shape, dtype=dtype)


@torch.library.custom_op("deblur::irfft2", mutates_args=())
def irfft2(re: Tensor, im: Tensor, width: int, *, norm: int) -> Tensor:
    """`torch.fft.irfft2` of re + i im.

    Args:
        re, im: [N, C, H, width // 2 + 1], float32 or float64.
        width: of the result, in values.
        norm: as for `rfft2`.

    Returns:
        [N, C, H, width], dtype of re.

    Raises:
        ValueError: a shape does not fit, or another norm.
    """
    IRFFT2.check(re, im, norm=norm)
    if re.shape[3] != width // 2 + 1:
        raise ValueError(f"IRFFT2: re has {re.shape[3]} columns, not {width} // 2 + 1")
    z, size = torch.complex(re, im), (re.shape[2], width)
    y: Tensor = torch.fft.irfft2(z, size, norm=NORMS[2 - norm])
    return y


@irfft2.register_fake
def _(re: Tensor, im: Tensor, width: int, *, norm: int) -> Tensor:
    return re.new_empty((*re.shape[:3], width))


@torch.library.custom_op("deblur::fft2", mutates_args=())
def fft2(re: Tensor, im: Tensor, *, norm: int, inverse: int) -> tuple[Tensor, Tensor]:
    """`torch.fft.fft2` or `ifft2` of re + i im.

    Args:
        re, im: [N, C, H, W], float32 or float64.
        norm: as for `rfft2`.
        inverse: 1 for the inverse, whose exponent is positive.

    Returns:
        Real and imaginary part, [N, C, H, W], dtype of re.

    Raises:
        ValueError: a shape does not fit, or another norm.
    """
    FFT2.check(re, im, norm=norm, inverse=inverse)
    z = torch.complex(re, im)
    if inverse:
        return _parts(torch.fft.ifft2(z, norm=NORMS[2 - norm]))
    return _parts(torch.fft.fft2(z, norm=NORMS[norm]))


@fft2.register_fake
def _(re: Tensor, im: Tensor, *, norm: int, inverse: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(re), torch.empty_like(re)


def _parts(z: Tensor) -> tuple[Tensor, Tensor]:
    """Copies: the parts of one number would be contiguous views."""
    form = torch.contiguous_format
    return z.real.clone(memory_format=form), z.imag.clone(memory_format=form)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@register_flop_formula([torch.ops.deblur.rfft2, torch.ops.deblur.irfft2, torch.ops.deblur.fft2])
def _flops(x_shape: torch.Size, *args: object, **kwargs: object) -> int:
    """No products that a multiply-add count of the network would list."""
    return 0


def _rfft2_body(target: Target) -> ir.Function:
    b = FunctionBody(RFFT2.inputs, RFFT2.attributes, target.opset)
    x = b.Cast(b.inputs[0], to=FLOAT)
    h, w = b.size(x, 2), b.size(x, 3)
    onesided = b.Constant(value_int=b.reference("onesided", "value_int"))
    # W - onesided * ((W - 1) // 2) columns
    others = b.Div(b.Sub(w, b.ints(1)), b.ints(2))
    cos, sin = _waves(b, w, b.Sub(w, b.Mul(onesided, others)), w)
    scale = _scale(b, h, w)
    real, below = b.MatMul(x, b.Mul(cos, scale)), b.MatMul(x, b.Mul(sin, scale))
    re, im = _forward_columns(b, real, below, *_waves(b, h, h, h))
    return b.function(RFFT2.name, [("re", re), ("im", im)], RFFT2.doc)


def _fft2_body(target: Target) -> ir.Function:
    b = FunctionBody(FFT2.inputs, FFT2.attributes, target.opset)
    re, im = (b.Cast(part, to=FLOAT) for part in b.inputs)
    h, w = b.size(re, 2), b.size(re, 3)
    inverse = b.Cast(b.Constant(value_int=b.reference("inverse", "value_int")), to=FLOAT)
    sign = b.Sub(b.floats(1.0), b.Mul(b.floats(2.0), inverse))
    cos, sin = _waves(b, w, w, w)
    scale = _scale(b, h, w)
    cos, sin = b.Mul(cos, scale), b.Mul(b.Mul(sin, sign), scale)
    real = b.Add(b.MatMul(re, cos), b.MatMul(im, sin))
    below = b.Sub(b.MatMul(re, sin), b.MatMul(im, cos))
    cos, sin = _waves(b, h, h, h)
    outputs = _forward_columns(b, real, below, cos, b.Mul(sin, sign))
    return b.function(FFT2.name, list(zip(FFT2.outputs, outputs, strict=True)), FFT2.doc)


def _irfft2_body(target: Target) -> ir.Function:
    b = FunctionBody(IRFFT2.inputs, IRFFT2.attributes, target.opset)
    re, im, width = b.inputs
    h, half, w = b.size(re, 2), b.size(re, 3), b.Reshape(width, b.ints(1))
    cos, sin = _waves(b, h, h, h)
    matrix = b.Concat(b.Concat(cos, b.Neg(sin), axis=1), b.Concat(sin, cos, axis=1), axis=0)
    stacked = b.Concat(b.Cast(re, to=FLOAT), b.Cast(im, to=FLOAT), axis=2)
    real, imaginary = b.split(b.MatMul(b.Mul(matrix, _scale(b, h, w)), stacked), 2, axis=2)
    # Every column stands for two, but the first and, of an even width, the last.
    twice = b.Mod(b.Mul(_range(b, half), b.ints(2)), w)
    single = b.Equal(twice, b.ints(0))
    times = b.Unsqueeze(b.Where(single, b.floats(1.0), b.floats(2.0)), b.ints(1))
    cos, sin = _waves(b, half, w, w)
    y = b.Sub(b.MatMul(real, b.Mul(cos, times)), b.MatMul(imaginary, b.Mul(sin, times)))
    return b.function(IRFFT2.name, [("y", y)], IRFFT2.doc)


def _forward_columns(
    b: FunctionBody, real: ir.Value, below: ir.Value, cos: ir.Value, sin: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The transform of the columns of real - i below, both [N, C, H, K], in one product."""
    minus = b.Neg(sin)
    matrix = b.Concat(b.Concat(cos, minus, axis=1), b.Concat(minus, b.Neg(cos), axis=1), axis=0)
    product = b.MatMul(matrix, b.Concat(real, below, axis=2))
    re, im = b.split(product, 2, axis=2)
    return re, im


def _waves(
    b: FunctionBody, rows: ir.Value, columns: ir.Value, length: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Cosine and sine of 2 pi i k / length, [rows, columns]; the sizes are vectors of one number.

    i k is reduced to -length / 2 .. length / 2 before it becomes a float.
    """
    product = b.Mul(b.Unsqueeze(_range(b, rows), b.ints(1)), _range(b, columns))
    middle = b.Div(length, b.ints(2))
    reduced = b.Sub(b.Mod(b.Add(product, middle), length), middle)
    turns = b.Div(b.Cast(reduced, to=FLOAT), b.Cast(length, to=FLOAT))
    angle = b.Mul(turns, b.floats(2 * math.pi))
    return b.Cos(angle), b.Sin(angle)


def _range(b: FunctionBody, size: ir.Value) -> ir.Value:
    return b.Range(b.scalar(0), b.Squeeze(size, b.ints(0)), b.scalar(1))


def _scale(b: FunctionBody, height: ir.Value, width: ir.Value) -> ir.Value:
    """(H W) ^ (-norm / 2), a vector of one number."""
    count = b.Mul(b.Cast(height, to=FLOAT), b.Cast(width, to=FLOAT))
    norm = b.Cast(b.Constant(value_int=b.reference("norm", "value_int")), to=FLOAT)
    return b.Pow(count, b.Mul(norm, b.floats(-0.5)))


BODIES = {"portable, ort, openvino, rtx": "matrix products with cosines and sines"}
NORM = AttributeSpec("0 for sums, 1 for sums / sqrt(H W), 2 for sums / (H W)", values=(0, 1, 2))


def _spectrum(shape: str, doc: str) -> TensorSpec:
    return TensorSpec("tensor(float)", shape, doc, fp32=SPECTRUM)


RFFT2 = OpSpec(
    name="RFFT2",
    doc="Fourier transform of real images [N,C,H,W]: real and imaginary part, [N,C,H,K].",
    about=__doc__,
    source=SOURCE,
    torch_op=torch.ops.deblur.rfft2.default,
    inputs={"x": TensorSpec("T", "N, C, H, W", "real images")},
    outputs={
        "re": TensorSpec("tensor(float)", "N, C, H, K", "real part"),
        "im": TensorSpec("tensor(float)", "N, C, H, K", "imaginary part"),
    },
    attributes={
        "norm": NORM,
        "onesided": AttributeSpec("1 for K = W // 2 + 1, 0 for K = W columns", values=(0, 1)),
    },
    body=_rfft2_body,
    bodies=BODIES,
    tensorrt=False,
)

IRFFT2 = OpSpec(
    name="IRFFT2",
    doc="Inverse of RFFT2 for a given width: images [N,C,H,width].",
    about=__doc__,
    source=SOURCE,
    torch_op=torch.ops.deblur.irfft2.default,
    inputs={
        "re": _spectrum("N, C, H, K", "real part, K = width // 2 + 1"),
        "im": _spectrum("N, C, H, K", "imaginary part"),
        "width": TensorSpec("tensor(int64)", "", "columns of the result"),
    },
    outputs={"y": TensorSpec("tensor(float)", "N, C, H, width", "real images")},
    attributes={"norm": NORM},
    body=_irfft2_body,
    bodies=BODIES,
    tensorrt=False,
)

FFT2 = OpSpec(
    name="FFT2",
    doc="Fourier transform of complex images [N,C,H,W], or its inverse.",
    about=__doc__,
    source=SOURCE,
    torch_op=torch.ops.deblur.fft2.default,
    inputs={
        "re": _spectrum("N, C, H, W", "real part"),
        "im": _spectrum("N, C, H, W", "imaginary part"),
    },
    outputs={
        "re_out": TensorSpec("tensor(float)", "N, C, H, W", "real part"),
        "im_out": TensorSpec("tensor(float)", "N, C, H, W", "imaginary part"),
    },
    attributes={
        "norm": NORM,
        "inverse": AttributeSpec("1 for the inverse", values=(0, 1)),
    },
    body=_fft2_body,
    bodies=BODIES,
    tensorrt=False,
)

SPECS = (RFFT2, IRFFT2, FFT2)
