"""MotionDeformConv: depth-wise 3x3 deformable convolution, one offset field for all channels.

    y[c, p] = bias[c] + sum_n weight[c, n] * bilinear(x[c], p + g_n + o_n(p)),   n = 0..8

with g_n the regular 3x3 grid (row-major, padding 1) and o_n(p) = (dy, dx) the offset of tap n
(M2AENet, Sec. 3.3: the taps follow the motion trajectory of the pixel; the sampling rule is that
of Dai et al. 2017, Eq. 2-4, as in ONNX DeformConv and torchvision: a corner outside the image
counts as zero). Sampling positions do not depend on the channel, so their indices and
coefficients are computed once a pixel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from deblur_export.plugins.function_body import FunctionBody
from deblur_export.plugins.spec import OPSET, OpSpec, Target

TAPS = 9
CORNERS = 4

with warnings.catch_warnings():  # torch says once a process that CSR tensors are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0], [], [], (0, 0), check_invariants=False)


def bilinear_plan(offset: Tensor) -> tuple[Tensor, Tensor]:
    """The four corners of every tap: flat pixel index and bilinear coefficient.

    Args:
        offset: [N, 18, H, W], channel 2n is dy and 2n+1 is dx of tap n, in pixels.

    Returns:
        index int64 and coefficient (dtype of offset), both [9, N*H*W, 4]; the index addresses
        rows of an [N*H*W, C] tensor, corners outside the image have coefficient 0.
    """
    n, _, h, w = offset.shape
    device, dtype = offset.device, offset.dtype
    tap = torch.arange(TAPS, device=device).view(TAPS, 1, 1, 1)
    y = tap // 3 - 1 + torch.arange(h, device=device).view(h, 1)
    x = tap % 3 - 1 + torch.arange(w, device=device)
    image = torch.arange(n, device=device).view(n, 1, 1, 1) * (h * w)
    field = offset.view(n, TAPS, 2, h, w).permute(2, 1, 0, 3, 4)

    def corners(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Lower and upper neighbour (new last axis): clamped, and weight, 0 outside the image."""
        low = position.floor()
        fraction = position - low
        corner = torch.stack([low, low + 1], -1).to(torch.int64)
        clamped = corner.clamp(0, size - 1)  # in integers: also nan becomes a valid index
        weight = torch.stack([1 - fraction, fraction], -1)
        return clamped, weight * (corner == clamped)

    yi, yw = corners(field[0] + y.to(dtype), h)
    xi, xw = corners(field[1] + x.to(dtype), w)
    index = (image + yi * w).unsqueeze(-1) + xi.unsqueeze(-2)
    coefficient = yw.unsqueeze(-1) * xw.unsqueeze(-2)
    shape = (TAPS, n * h * w, CORNERS)
    return index.view(shape), coefficient.view(shape)


# (sum so far [P, C], rows [P, C], index [P, 4], coefficient [P, 4], weight [C]) -> sum with a tap
AddTap = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _add_tap(y: Tensor, rows: Tensor, index: Tensor, coefficient: Tensor, weight: Tensor) -> Tensor:
    sampled = F.embedding_bag(index, rows, per_sample_weights=coefficient, mode="sum")
    return torch.addcmul(y, sampled, weight)


def _add_tap_in_place(
    y: Tensor, rows: Tensor, index: Tensor, coefficient: Tensor, weight: Tensor
) -> Tensor:
    """`_add_tap` as a sparse matrix product: on CPU 3 to 5 times faster, not differentiable.

    At the border a clamped index is listed twice, once with coefficient 0. The product sums
    both; only torch's invariants and its gradient of sparse tensors exclude that.
    """
    starts = torch.arange(0, index.numel() + 1, CORNERS, device=index.device)
    interpolation = torch.sparse_csr_tensor(
        starts,
        index.flatten(),
        coefficient.flatten(),
        (len(y), len(rows)),
        check_invariants=False,
    )
    return y.addmm_(interpolation, rows * weight)


def motion_deform_conv_reference(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, add_tap: AddTap = _add_tap
) -> Tensor:
    """MotionDeformConv in plain differentiable torch; float16 and bfloat16 compute in float32."""
    n, c, h, w = x.shape
    compute = torch.promote_types(x.dtype, torch.float32)
    rows = x.to(compute).permute(0, 2, 3, 1).reshape(-1, c)
    index, coefficient = bilinear_plan(offset.to(compute))
    taps = weight.to(compute).view(c, TAPS)
    y = bias.to(compute).repeat(len(rows), 1)
    for tap in range(TAPS):
        y = add_tap(y, rows, index[tap], coefficient[tap], taps[:, tap])
    return y.view(n, h, w, c).permute(0, 3, 1, 2).contiguous().to(x.dtype)


@torch.library.custom_op("deblur::motion_deform_conv", mutates_args=())
def motion_deform_conv(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, *, group: int
) -> Tensor:
    """Depth-wise 3x3 deformable convolution with offsets shared by all channels.

    Args:
        x: [N, C, H, W] features.
        offset: [N, 18, H, W] displacement of each tap in pixels, (dy, dx) interleaved; 0 leaves
            an ordinary 3x3 convolution with zero padding.
        weight: [C, 1, 3, 3].
        bias: [C].
        group: C (depth-wise); kept as an attribute because ONNX convolutions need it static.

    Returns:
        [N, C, H, W], contiguous, dtype of x.

    Raises:
        ValueError: a shape does not fit.
    """
    _check(x, offset, weight, bias, group)
    add_tap = _add_tap_in_place if x.is_cpu else _add_tap
    return motion_deform_conv_reference(x, offset, weight, bias, add_tap)


def _check(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, group: int) -> None:
    n, c, h, w = x.shape
    expected = {
        "offset": (offset, (n, 2 * TAPS, h, w)),
        "weight": (weight, (c, 1, 3, 3)),
        "bias": (bias, (c,)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"motion_deform_conv: {name} is {tuple(tensor.shape)}, not {shape}")
    if group != c:
        raise ValueError(f"motion_deform_conv: group is {group}, but x has {c} channels")


@motion_deform_conv.register_fake
def _(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, *, group: int) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _setup_context(ctx, inputs, keyword_only_inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    # Recomputing keeps nothing but the inputs; autograd differentiates the reference itself.
    with torch.enable_grad():
        inputs = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        y = motion_deform_conv_reference(*inputs)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    grads = iter(torch.autograd.grad(y, wanted, grad))
    return tuple(next(grads) if t.requires_grad else None for t in inputs)


motion_deform_conv.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.deblur.motion_deform_conv)
def _flops(x_shape, *args, out_shape=None, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """9 multiply-adds an output value, as for an ordinary depth-wise 3x3 convolution."""
    n, c, h, w = x_shape
    return int(2 * TAPS * n * c * h * w)


def _body(target: Target) -> ir.Function:
    b = FunctionBody(tuple(SPEC.inputs), SPEC.attributes, OPSET[target])
    x, offset, weight, bias, grid = b.inputs
    if target == "ort":
        y = b.DeformConv(
            x,
            weight,
            offset,
            bias,
            group=b.reference("group"),
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            offset_group=1,
        )
    else:
        y = _grid_sample_body(b, x, weight, bias, grid)
    return b.function(SPEC.name, [("y", y)], SPEC.doc)


def _grid_sample_body(
    b: FunctionBody, x: ir.Value, weight: ir.Value, bias: ir.Value, grid: ir.Value
) -> ir.Value:
    """One GridSample a tap; bench/ops.py compares it with the other formulations."""
    grids = b.Split(grid, axis=0, num_outputs=TAPS)
    weights = b.Split(b.Reshape(weight, b.ints(0, TAPS, 1)), axis=1, num_outputs=TAPS)
    total = b.Reshape(bias, b.ints(-1, 1, 1))
    for tap in range(TAPS):
        sampled = b.GridSample(x, b.Squeeze(grids[tap], b.ints(0)), align_corners=0)
        total = b.Add(total, b.Mul(sampled, weights[tap]))
    return total


SPEC = OpSpec(
    name="MotionDeformConv",
    doc="Depth-wise 3x3 deformable convolution; offset [N,18,H,W] as (dy,dx) a tap, in pixels.",
    torch_op=torch.ops.deblur.motion_deform_conv.default,
    inputs={"x": "T", "offset": "T", "weight": "T", "bias": "T"} | {"grid": "tensor(float)"},
    optional=("grid",),
    outputs={"y": "T"},
    attributes=("group",),
    body=_body,
)
