"""The indices of the H*W / r^2 pixels with the highest scores, ascending.

Of equal scores the lower pixel index wins (SAPHN's sampling at test time; the paper leaves ties
open). The number of chosen pixels depends on the size alone, so that nothing behind the op has a
data-dependent shape.

TensorRT's TopK stops at 3840 elements. The "rtx" body finds the lowest chosen score by a search
over the float32 numbers themselves, in their order, four bits of the answer at a time: a number
counts as too low while at least as many scores as wanted reach it. Eight rounds make it exact,
whatever the range of the scores. All pixels above that score are chosen, and of those that equal it
the first few.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.libraries import cuda
from deblur_export.plugins.parameters import (
    DECIDES,
    AttributeSpec,
    NativeFunction,
    TensorSpec,
)
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import Target

DIGIT = 16  # one more than the candidates of a round
ROUNDS = 8  # 16^8 = 2^32 numbers
FRACTION = 2**23  # how many float32 numbers lie between two powers of two
COUNTS = {"pixels": "H*W", "count": "H/ratio * (W/ratio)"}
INT32, FLOAT = int(ir.DataType.INT32), int(ir.DataType.FLOAT)


@torch.library.custom_op("deblur::top_pixels", mutates_args=())
def top_pixels(scores: Tensor, *, ratio: int) -> Tensor:
    """The pixels of each image with the highest scores, one out of ratio x ratio.

    Args:
        scores: [N, 1, H, W], any floats but NaN; H and W are multiples of ratio.
        ratio: at least 1; H * W / ratio^2 pixels are chosen.

    Returns:
        [N, H * W / ratio^2] int64, pixel indices y*W + x, ascending.

    Raises:
        ValueError: scores have another shape, or ratio is not positive.
    """
    SPEC.check(scores, ratio=ratio)
    h, w = scores.shape[2:]
    if h % ratio or w % ratio:
        raise ValueError(f"TopPixels: {h}x{w} is no multiple of ratio {ratio}")
    if cuda.supports(SPEC, scores):
        return cuda.compute(SPEC, scores, ratio=ratio)
    order = scores.flatten(1).sort(dim=1, descending=True, stable=True).indices
    return order[:, : (h // ratio) * (w // ratio)].sort(dim=1).values


@top_pixels.register_fake
def _(scores: Tensor, *, ratio: int) -> Tensor:
    n, _, h, w = scores.shape
    return scores.new_empty(n, (h // ratio) * (w // ratio), dtype=torch.int64)


def _body(target: Target) -> ir.Function:
    b = FunctionBody(SPEC.inputs, SPEC.attributes, target.opset)
    (scores,) = b.inputs
    ratio = b.Reshape(b.Constant(value_int=b.reference("ratio", "value_int")), b.ints(1))
    area = b.Mul(b.size(scores, 2), b.size(scores, 3))
    count = b.Div(area, b.Mul(ratio, ratio))
    flat = b.Reshape(scores, b.ints(0, -1))
    if not target.large_topk:
        index = _search_body(b, flat, area, count)
    else:
        _, best = b.outputs("TopK", 2, flat, count, axis=1, sorted=0)
        index, _ = b.outputs("TopK", 2, best, count, axis=1, largest=0)
    return b.function(SPEC.name, [("index", index)], SPEC.doc)


def _search_body(b: FunctionBody, flat: ir.Value, area: ir.Value, count: ir.Value) -> ir.Value:
    """Without TopK: flat [N, H*W] float32 -> [N, count]."""
    wanted = b.Cast(count, to=INT32)
    lowest = _lowest_chosen(b, flat, wanted)
    above, equal = b.Greater(flat, lowest), b.Equal(flat, lowest)
    axis = b.scalar(1)
    above_so_far = b.CumSum(b.Cast(above, to=INT32), axis)
    equal_so_far = b.CumSum(b.Cast(equal, to=INT32), axis)
    missing = b.Sub(wanted, b.ReduceSum(b.Cast(above, to=INT32), b.ints(1)))
    chosen = b.Or(above, b.And(equal, b.LessOrEqual(equal_so_far, missing)))
    rank = b.Add(above_so_far, b.Min(equal_so_far, missing))
    one = b.Cast(b.ints(1), to=INT32)
    slot = b.Where(chosen, b.Sub(rank, one), wanted)  # the others share a last slot
    index = b.Range(b.scalar(0), b.Squeeze(area, b.ints(0)), b.scalar(1))
    index = b.Expand(index, b.Shape(flat))
    size = b.Concat(b.size(flat, 0), b.Add(count, b.ints(1)), axis=0)
    listed = b.ScatterElements(b.Expand(b.ints(0), size), slot, index, axis=1)
    return b.Slice(listed, b.ints(0), count, b.ints(1))


def _lowest_chosen(b: FunctionBody, flat: ir.Value, wanted: ir.Value) -> ir.Value:
    """The largest float32 that at least `wanted` scores reach, [N, 1]."""
    scores = b.Unsqueeze(flat, b.ints(1))
    found = b.Expand(b.ints(0), b.Concat(b.size(flat, 0), b.ints(1), axis=0))
    digits = b.ints(*range(1, DIGIT))
    for position in reversed(range(ROUNDS)):
        step = b.ints(DIGIT**position)
        candidates = b.Add(found, b.Mul(digits, step))  # [N, 15]
        reached = b.GreaterOrEqual(scores, b.Unsqueeze(_float_of(b, candidates), b.ints(2)))
        counts = b.ReduceSum(b.Cast(reached, to=INT32), b.ints(2), keepdims=0)
        enough = b.Cast(b.GreaterOrEqual(counts, wanted), to=int(ir.DataType.INT64))
        found = b.Add(found, b.Mul(b.ReduceSum(enough, b.ints(1)), step))
    return _float_of(b, found)


def _float_of(b: FunctionBody, order: ir.Value) -> ir.Value:
    """The float32 number at this position, 0 .. 2^32 - 1, of all of them in ascending order.

    Made of exact products of small numbers, for older opsets have no bit cast.
    """
    half = b.ints(2**31)
    positive = b.GreaterOrEqual(order, half)
    bits = b.Where(positive, b.Sub(order, half), b.Sub(b.ints(2**31 - 1), order))
    exponent, fraction = b.Div(bits, b.ints(FRACTION)), b.Mod(bits, b.ints(FRACTION))
    powers = [2.0 ** (max(e, 1) - 127) for e in range(255)] + [float("inf")]
    power = b.Gather(b.floats(powers), exponent, axis=0)
    leading = b.Gather(b.floats([0.0] + [1.0] * 255), exponent, axis=0)
    part = b.Mul(b.Cast(fraction, to=FLOAT), b.floats(1 / FRACTION))
    size = b.Mul(power, b.Add(leading, part))
    return b.Where(positive, size, b.Neg(size))


SPEC = OpSpec(
    name="TopPixels",
    doc="Numbers [N,H*W/ratio^2] of the pixels with the highest scores [N,1,H,W], ascending; "
    "equal scores: the lower number first.",
    about=__doc__,
    source="SAPHN, sampling at test time",
    torch_op=torch.ops.deblur.top_pixels.default,
    inputs={
        "scores": TensorSpec(
            "tensor(float)", "N, 1, H, W", "any numbers, the higher the better", fp32=DECIDES
        )
    },
    outputs={
        "index": TensorSpec(
            "tensor(int64)", "N, H/ratio * (W/ratio)", "pixel indices y*W + x, ascending"
        )
    },
    attributes={
        "ratio": AttributeSpec("one of ratio x ratio pixels is chosen; H and W divide by it")
    },
    body=_body,
    bodies={
        "portable, ort, openvino": "two TopK, the second of which sorts the indices",
        "rtx": "a search over the float32 numbers, then CumSum and ScatterElements",
    },
    cpu=NativeFunction("deblur_top_pixels", "scores index n pixels count threads", sizes=COUNTS),
    cuda=NativeFunction(
        "deblur_cuda_top_pixels", "scores index n pixels count stream", sizes=COUNTS
    ),
)

SPECS = (SPEC,)
