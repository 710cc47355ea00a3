"""DeformConv2d and DeformConv2dAt beyond the case table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deblur_export.plugins.ops import OPS
from deblur_export.plugins.ops.deform_conv2d import deform_conv2d, deform_conv2d_at
from deblur_export.target import TARGETS, TargetName
from tests.plugins.cases.deform_conv2d import deform, listed
from tests.tolerances import OP_FLOAT64

Op = Callable[..., Tensor]
SMALL = (
    (deform_conv2d, deform(1, 2, 3, 4, 3, 0.7)),
    (deform_conv2d_at, listed(2, 2, 3, 4, 3, 3, 0.7)),
)


def differentiable(inputs: dict[str, Any]) -> tuple[tuple[Tensor, ...], int]:
    kernel = inputs.pop("kernel")
    return tuple(v.requires_grad_(v.is_floating_point()) for v in inputs.values()), kernel


@pytest.mark.parametrize(("op", "make"), SMALL)
def test_gradients(op: Op, make: Callable[..., Any]) -> None:
    tensors, kernel = differentiable(make(torch.float64))
    assert torch.autograd.gradcheck(lambda *a: op(*a, kernel=kernel), tensors)


@pytest.mark.parametrize(("op", "make"), SMALL)
def test_opcheck_with_gradients(op: Op, make: Callable[..., Any]) -> None:
    tensors, kernel = differentiable(make(torch.float32))
    torch.library.opcheck(op, tensors, {"kernel": kernel})


@pytest.mark.parametrize("kernel", [3, 5])
def test_without_offsets_and_factors_it_is_a_convolution(kernel: int) -> None:
    inputs = deform(2, 3, 6, 7, kernel, 0.0)(torch.float64)
    inputs["mask"] = torch.ones_like(inputs["mask"])
    expected = F.conv2d(inputs["x"], inputs["weight"], inputs["bias"], padding=kernel // 2)
    torch.testing.assert_close(deform_conv2d(**inputs), expected, **OP_FLOAT64)


def test_listed_pixels_are_those_of_the_dense_op() -> None:
    inputs = listed(2, 3, 6, 7, 5, 11)(torch.float64)
    dense = deform_conv2d(**deform(2, 3, 6, 7, 5)(torch.float64)).flatten(2)
    index = inputs["index"].unsqueeze(1).expand(-1, dense.shape[1], -1)
    torch.testing.assert_close(deform_conv2d_at(**inputs), dense.gather(2, index), **OP_FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_accumulates_in_float32(dtype: torch.dtype) -> None:
    inputs = deform(1, 4, 8, 8, 5)(dtype)
    wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    torch.testing.assert_close(deform_conv2d(**inputs), deform_conv2d(**wide).to(dtype))


def test_products_are_those_of_a_convolution() -> None:
    def products(op: Op, inputs: dict[str, Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            op(**inputs)
        return counter.get_total_flops() // 2

    taps, channels, outputs = 25, 3, 4
    assert products(deform_conv2d, deform(2, 3, 6, 7, 5)(torch.float32)) == (
        2 * 6 * 7 * taps * channels * outputs
    )
    assert products(deform_conv2d_at, listed(2, 3, 6, 7, 5, 11)(torch.float32)) == (
        2 * 11 * taps * channels * outputs
    )


@pytest.mark.parametrize("name", ["DeformConv2d", "DeformConv2dAt"])
@pytest.mark.parametrize("target", TARGETS)
def test_bodies_sample_one_row_of_taps_at_a_time(name: str, target: TargetName) -> None:
    nodes = [node.op_type for node in OPS[name].body(TARGETS[target]).graph]
    assert nodes.count("GridSample") == nodes.count("MatMul") == 5
    assert "DeformConv" not in nodes


@pytest.mark.parametrize("name", ["offset", "weight", "bias", "mask", "kernel", "index"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    inputs = listed(2, 3, 4, 5, 5, 6)(torch.float32)
    if name == "kernel":
        inputs[name] = 4
    elif name == "index":
        inputs[name] = inputs[name][:1]
    else:
        inputs[name] = inputs[name][..., :-1]
    with pytest.raises(ValueError, match=name):
        deform_conv2d_at(**inputs)
