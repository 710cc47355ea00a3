"""Every custom op: opcheck, dense definition in float64, ONNX bodies; from one case table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.export.passes.share_sampling_grid import share_sampling_grid
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.ops.motion_deform_conv import motion_deform_conv
from deblur_export.plugins.ops.pixel_rows import pixel_gather, pixel_scatter
from deblur_export.plugins.ops.pruned_conv import (
    _pruned_rows,
    pruned_conv,
    pruned_conv_reference,
)
from deblur_export.plugins.spec import OPSET, TARGETS, Target
from tests.tolerances import OP_FLOAT32, OP_FLOAT64


@dataclass(frozen=True)
class Case:
    op: str
    name: str
    make: Callable[[torch.dtype], dict[str, Any]]

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def rand(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def deform(n: int, c: int, h: int, w: int, offset_scale: float) -> Callable[..., dict[str, Any]]:
    def make(dtype: torch.dtype) -> dict[str, Any]:
        tensors = {
            "x": rand(n, c, h, w),
            "offset": rand(n, 18, h, w, scale=offset_scale),
            "weight": rand(c, 1, 3, 3),
            "bias": rand(c),
        }
        # Rounded to float32 first, so that every dtype samples the same positions.
        return {k: v.float().to(dtype) for k, v in tensors.items()} | {"group": c}

    return make


def blob_mask(n: int, h: int, w: int, coverage: float) -> Tensor:
    """Connected regions that touch the border; exactly empty at 0 and full at 1."""
    field = F.avg_pool2d(rand(n, 1, h + 4, w + 4, seed=7), 5, stride=1)
    if coverage == 1.0:
        return torch.ones_like(field)
    return (field > field.flatten().quantile(1 - coverage)).to(field)


def pruned(n: int, c: int, h: int, w: int, coverage: float) -> Callable[..., dict[str, Any]]:
    def make(dtype: torch.dtype) -> dict[str, Any]:
        tensors = {
            "x": rand(n, c, h, w),
            "mask": blob_mask(n, h, w, coverage),
            "weight1": rand(2 * c, c, 1, 1),
            "bias1": rand(2 * c),
            "weight2": rand(2 * c, 1, 3, 3),
            "bias2": rand(2 * c, seed=3),
        }
        return {k: v.float().to(dtype) for k, v in tensors.items()} | {"group": 2 * c}

    return make


def listed(n: int, h: int, w: int, coverage: float) -> Tensor:
    return blob_mask(n, h, w, coverage).flatten().nonzero().squeeze(1)


def gather(n: int, c: int, h: int, w: int, coverage: float, kernel: int) -> Callable[..., Any]:
    return lambda dtype: {
        "x": rand(n, c, h, w).float().to(dtype),
        "index": listed(n, h, w, coverage),
        "kernel": kernel,
    }


def scatter(n: int, c: int, h: int, w: int, coverage: float) -> Callable[..., Any]:
    def make(dtype: torch.dtype) -> dict[str, Any]:
        index = listed(n, h, w, coverage)
        rows = rand(len(index), c, seed=5).float().to(dtype)
        return {"base": rand(n, c, h, w).float().to(dtype), "index": index, "rows": rows}

    return make


CASES = [
    Case("MotionDeformConv", "zero-offset", deform(1, 4, 6, 5, 0.0)),
    Case("MotionDeformConv", "batch-odd", deform(2, 6, 7, 11, 2.5)),
    Case("MotionDeformConv", "far-outside", deform(1, 3, 5, 4, 40.0)),
    Case("MotionDeformConv", "one-pixel", deform(2, 2, 1, 1, 1.0)),
    Case("MotionDeformConv", "one-row", deform(1, 2, 1, 9, 1.0)),
    *(
        Case("PrunedConv", f"coverage-{int(100 * share)}", pruned(2, 5, 9, 13, share))
        for share in (0.0, 0.02, 0.1, 0.4, 0.9, 1.0)
    ),
    Case("PrunedConv", "one-pixel", pruned(1, 3, 1, 1, 1.0)),
    Case("PixelGather", "unfold", gather(2, 3, 6, 7, 0.3, 3)),
    Case("PixelGather", "rows", gather(2, 3, 6, 7, 0.3, 1)),
    Case("PixelGather", "all", gather(1, 3, 4, 3, 1.0, 3)),
    Case("PixelGather", "none", gather(1, 3, 4, 3, 0.0, 3)),
    Case("PixelScatter", "some", scatter(2, 3, 6, 7, 0.3)),
    Case("PixelScatter", "none", scatter(1, 3, 4, 5, 0.0)),
    Case("PixelScatter", "all", scatter(1, 3, 4, 5, 1.0)),
]

RANK = {"PixelGather": 2}

TORCH_OPS = {
    "MotionDeformConv": motion_deform_conv,
    "PrunedConv": pruned_conv,
    "PixelGather": pixel_gather,
    "PixelScatter": pixel_scatter,
}


def dense(case: Case, inputs: dict[str, Any]) -> Tensor:
    """The op's definition, written with other building blocks than the op itself."""
    if case.op == "PixelGather":
        x, index, kernel = inputs["x"], inputs["index"], inputs["kernel"]
        columns = F.unfold(x, kernel, padding=kernel // 2)  # [N, C*k*k, H*W], channel-major
        n, _, pixels = columns.shape
        tap_major = columns.view(n, x.shape[1], kernel * kernel, pixels).permute(0, 3, 2, 1)
        return tap_major.reshape(n * pixels, -1)[index]
    if case.op == "PixelScatter":
        y = inputs["base"].clone()
        h, w = y.shape[2:]
        for number, row in zip(inputs["index"].tolist(), inputs["rows"], strict=True):
            image, pixel = divmod(number, h * w)
            y[image, :, pixel // w, pixel % w] = row
        return y
    if case.op == "PrunedConv":
        without_group = {k: v for k, v in inputs.items() if k != "group"}
        return pruned_conv_reference(**without_group)
    return tent_deform(**inputs)


def tent_deform(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, group: int) -> Tensor:
    """The definition: every sample is a sum over all pixels q of x[q] tent(y - qy) tent(x - qx)."""
    n, c, h, w = x.shape
    y = bias.view(1, c, 1, 1).expand(n, c, h, w).clone()
    rows, columns = torch.arange(h).to(x), torch.arange(w).to(x)
    for tap in range(9):
        py = rows.view(h, 1) + tap // 3 - 1 + offset[:, 2 * tap]
        px = columns + tap % 3 - 1 + offset[:, 2 * tap + 1]
        tent_y = (1 - (py[..., None] - rows).abs()).clamp(min=0)  # [N, H, W, H]
        tent_x = (1 - (px[..., None] - columns).abs()).clamp(min=0)  # [N, H, W, W]
        sample = torch.einsum("ncij,nhwi,nhwj->nchw", x, tent_y, tent_x)
        y += sample * weight.view(c, 9)[:, tap].view(1, c, 1, 1)
    return y


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_dense_definition_in_float64(case: Case) -> None:
    inputs = case.make(torch.float64)
    y = TORCH_OPS[case.op](**inputs)
    torch.testing.assert_close(y, dense(case, inputs), **OP_FLOAT64)


@pytest.mark.parametrize("case", [c for c in CASES if c.op == "PrunedConv"], ids=str)
def test_pruned_rows_at_any_coverage(case: Case) -> None:
    """Also above the break-even, where the op itself would take the dense form."""
    inputs = case.make(torch.float64)
    del inputs["group"]
    torch.testing.assert_close(
        _pruned_rows(**inputs), pruned_conv_reference(**inputs), **OP_FLOAT64
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck(case: Case) -> None:
    inputs = case.make(torch.float32)
    if case.op == "MotionDeformConv":
        inputs = {k: v.requires_grad_() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    group = {"group": inputs.pop("group")} if "group" in inputs else {}
    torch.library.opcheck(TORCH_OPS[case.op], tuple(inputs.values()), group)


def test_motion_deform_conv_gradients() -> None:
    inputs = deform(1, 2, 4, 3, 0.7)(torch.float64)
    group = inputs.pop("group")
    tensors = tuple(v.requires_grad_() for v in inputs.values())
    assert torch.autograd.gradcheck(lambda *a: motion_deform_conv(*a, group=group), tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_motion_deform_conv_half_accumulates_in_float32(dtype: torch.dtype) -> None:
    inputs = deform(1, 4, 8, 8, 1.0)(dtype)
    y = motion_deform_conv(**inputs)
    exact = motion_deform_conv(
        **{k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    )
    torch.testing.assert_close(y, exact.to(dtype))


def model_of(case: Case, target: Target, inputs: dict[str, Any]) -> onnx.ModelProto:
    """One node of the op, its function attached, every dimension dynamic."""
    spec = OPS[case.op]
    types = {torch.float32: onnx.TensorProto.FLOAT, torch.int64: onnx.TensorProto.INT64}
    tensors = {k: v for k, v in inputs.items() if isinstance(v, Tensor)}
    node = onnx.helper.make_node(
        spec.name,
        list(tensors),
        list(spec.outputs),
        domain="deblur",
        **{k: inputs[k] for k in spec.attributes},
    )
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "case",
        [info(k, types[v.dtype], [None] * v.dim()) for k, v in tensors.items()],
        [info(k, types[torch.float32], [None] * RANK.get(case.op, 4)) for k in spec.outputs],
    )
    opsets = [onnx.helper.make_opsetid("", OPSET[target]), onnx.helper.make_opsetid("deblur", 1)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    if target == "portable":
        share_sampling_grid(model)
    attach_functions(model, target)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_onnx_body_on_onnxruntime(case: Case, target: Target) -> None:
    inputs = case.make(torch.float32)
    session = ort.InferenceSession(
        model_of(case, target, inputs).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {k: v.numpy() for k, v in inputs.items() if isinstance(v, Tensor)}
    (y,) = session.run(None, feed)
    exact = dense(case, case.make(torch.float64)).numpy()
    np.testing.assert_allclose(y, exact, **OP_FLOAT32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: motion_deform_conv(
                rand(1, 2, 3, 3), rand(1, 16, 3, 3), rand(2, 1, 3, 3), rand(2), group=2
            ),
            "offset",
        ),
        (
            lambda: motion_deform_conv(
                rand(1, 2, 3, 3), rand(1, 18, 3, 3), rand(2, 1, 3, 3), rand(2), group=1
            ),
            "group",
        ),
        (
            lambda: pruned_conv(
                **(pruned(1, 2, 3, 3, 1.0)(torch.float32) | {"mask": rand(1, 2, 3, 3)})
            ),
            "mask",
        ),
        (lambda: pixel_gather(rand(1, 2, 3, 3), torch.tensor([0]), 5), "kernel"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
