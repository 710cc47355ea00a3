"""The masked convolution as unfold and 1x1 is exact, also at borders, and can be exported."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export import models
from deblur_export.export.reparam.infra import reparameterize
from deblur_export.export.reparam.unfold_masked_conv import SLOWER, merge, unfold_masked_conv
from deblur_export.export.to_onnx import lower, trace
from deblur_export.models.complexity import count_macs
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.m2aenet import M2AENet
from deblur_export.models.random_weights import randomize
from deblur_export.plugins.ops.pruned_conv import pruned_conv_reference
from tests.tolerances import NETWORK_FLOAT32, NOTICEABLE, OP_FLOAT64

BLOCKS = [f"encoders.3.{i}" for i in range(6)]  # of the tiny variant
CHANNELS = 8 * 2**3
FORCED = [("unfold_masked_conv", functools.partial(unfold_masked_conv, force=True))]


def tiny(**arguments: Any) -> M2AENet:
    spec = models.get("m2aenet")
    net = spec.build(**{**spec.variants["tiny"], **arguments})
    randomize(net, spec, 0)
    assert isinstance(net, M2AENet)
    return net.eval()


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@functools.cache
def unfolded() -> tuple[nn.Module, Any]:
    net, (report,) = reparameterize(tiny(), FORCED, (image(2, 3, 41, 37),))
    return net, report


def convolutions() -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    conv1, conv2 = nn.Conv2d(5, 10, 1), nn.Conv2d(10, 10, 3, padding=1, groups=10)
    return conv1.double(), conv2.double()


def masks(n: int, h: int, w: int) -> dict[str, Tensor]:
    checked = torch.arange(n * h * w).view(n, 1, h, w) % 3 == 0
    return {
        "nothing": torch.zeros(n, 1, h, w),
        "some": checked.float(),
        "everything": torch.ones(n, 1, h, w),
    }


@pytest.mark.parametrize("coverage", ["nothing", "some", "everything"])
@pytest.mark.parametrize("size", [(2, 7, 9), (1, 6, 4), (2, 1, 1), (1, 1, 5)], ids=str)
def test_module_equals_the_two_convolutions(size: tuple[int, int, int], coverage: str) -> None:
    n, h, w = size
    conv1, conv2 = convolutions()
    x, mask = image(n, 5, h, w).double(), masks(n, h, w)[coverage].double()
    expected = pruned_conv_reference(x, mask, conv1.weight, conv1.bias, conv2.weight, conv2.bias)
    torch.testing.assert_close(merge(conv1, conv2)(x, mask), expected, **OP_FLOAT64)


def test_bias_folded_without_the_ones_is_wrong_at_the_border_only() -> None:
    """Each tap needs a channel of ones, because the usual fold ignores the zero padding between the
    convolutions."""
    conv1, conv2 = convolutions()
    dense = conv2.weight * conv1.weight  # [10, 1, 3, 3] * [10, 5, 1, 1]
    bias = conv2.bias + conv2.weight.sum(dim=(1, 2, 3)) * conv1.bias
    x = image(1, 5, 6, 7).double()
    error = (F.conv2d(x, dense, bias, padding=1) - conv2(conv1(x))).abs().amax(dim=(0, 1))
    assert error[1:-1, 1:-1].max() <= OP_FLOAT64["atol"]
    error[1:-1, 1:-1] = torch.inf
    assert error.min() > NOTICEABLE


def test_pass_is_exact_and_replaces_both_convolutions() -> None:
    net, report = unfolded()
    assert list(report.changed) == BLOCKS
    keys = net.state_dict().keys()
    for block in BLOCKS:
        own = {key.removeprefix(f"{block}.") for key in keys if key.startswith(f"{block}.")}
        assert not {key for key in own if key.startswith(("conv1.", "conv2."))}
        assert {"unfolded.weight", "unfolded.bias"} <= own
    original = 2 * CHANNELS * (CHANNELS + 1) + 2 * CHANNELS * 10
    merged = 2 * CHANNELS * (9 * (CHANNELS + 1) + 1)
    grown = report.parameters_after - report.parameters_before
    assert grown == len(BLOCKS) * (merged - original)


@pytest.mark.parametrize("coverage", ["nothing", "some", "everything"])
def test_network_with_a_given_mask(coverage: str) -> None:
    net, x = tiny(), image(2, 3, 33, 50)
    mask = masks(2, 6, 8)[coverage]
    with torch.no_grad():
        torch.testing.assert_close(unfolded()[0](x, mask), net(x, mask), **NETWORK_FLOAT32)


def test_pass_declines_unless_forced() -> None:
    _, (report,) = reparameterize(
        tiny(), [("unfold_masked_conv", unfold_masked_conv)], (image(1, 3, 16, 16),)
    )
    assert report.changed == ()
    assert report.declined == tuple((block, SLOWER) for block in BLOCKS)
    assert report.parameters_after == report.parameters_before


def test_second_run_declines() -> None:
    net, _ = unfolded()
    changes = unfold_masked_conv(net, (), force=True)
    assert not changes.changed
    assert changes.declined == [(block, "already unfolded") for block in BLOCKS]


def test_macs_count_every_pixel() -> None:
    pixels = 4 * 6
    matrix = pixels * 2 * CHANNELS * 9 * (CHANNELS + 1)
    separable = pixels * 2 * CHANNELS * (CHANNELS + 9)
    before, after = count_macs(tiny(), 32, 48), count_macs(unfolded()[0], 32, 48)
    assert after.pure - before.pure == len(BLOCKS) * (matrix - separable)
    assert after.prunable == len(BLOCKS) * matrix


@pytest.mark.parametrize("shape", [(2, 3, 33, 47), pytest.param(None, marks=pytest.mark.slow)])
def test_onnx_on_onnxruntime(shape: tuple[int, int, int, int] | None) -> None:
    """With a single masked block, because tracing is slow and all blocks are alike. A shape of None
    is dynamic."""
    net = tiny(encoder_blocks=[1, 1, 1, 1])
    rewritten, _ = reparameterize(net, FORCED, (image(2, 3, 41, 37),))
    traced = trace(rewritten, ImageSpec(16), shape).graph
    for target in ("portable", "ort"):
        model = ir.to_proto(lower(traced, target))
        assert {"PixelGather", "PixelScatter"} <= {function.name for function in model.functions}
        session = ort.InferenceSession(model.SerializeToString())
        for size in [shape] if shape else [(1, 3, 33, 47), (2, 3, 64, 48), (3, 3, 5, 16)]:
            x = image(*size)
            with torch.no_grad():
                expected = net(x).numpy()
            (restored,) = session.run(None, {"image": x.numpy()})
            np.testing.assert_allclose(restored, expected, **NETWORK_FLOAT32)
