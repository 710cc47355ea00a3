"""The flow of UFPNet's kernel prior on sorted halves is exact and accurate with half the
products."""

from __future__ import annotations

import copy

import pytest
import torch

from deblur_export.export.reparam import EXACT_PASSES
from deblur_export.export.reparam.fold_flow import fold_flow
from deblur_export.export.reparam.infra import reparameterize
from deblur_export.models import get
from deblur_export.models.blocks.folded_flow import FoldedFlow
from deblur_export.models.blocks.kernel_prior import FlowBatchNorm, KernelPrior
from deblur_export.models.complexity import count_macs_of
from deblur_export.models.random_weights import randomize
from deblur_export.models.ufpnet import UFPNet
from tests.models.test_nafnet import rand
from tests.models.test_ufpnet import SMALL, image, small
from tests.tolerances import FOLDED_FLOAT32, NETWORK_FLOAT64

SPEC = get("ufpnet")


@pytest.mark.parametrize("blocks", [[1, 1, 1, 2], [1, 2, 1, 1], [2, 2, 2, 2], [1, 2, 2, 2]])
def test_folded_flow_computes_the_same(blocks: list[int]) -> None:
    net = UFPNet(**{**SMALL, "encoder_blocks": blocks})
    randomize(net, SPEC, 0)
    net, x, noise = net.double().eval(), image(2, 3, 32, 16), rand(2, 9, 32, 16)
    assert isinstance(net.flow, KernelPrior)
    net.flow.normalization.fill_(0.9)
    with torch.no_grad():
        expected, noisy = net(x), net(x, noise)
        assert fold_flow(net, (x,)).changed == ["flow"]
        assert isinstance(net.flow, FoldedFlow)
        torch.testing.assert_close(net(x), expected, **NETWORK_FLOAT64)
        torch.testing.assert_close(net(x, noise), noisy, **NETWORK_FLOAT64)
    assert fold_flow(net, (x,)).declined == [("flow", "already folded")]


def test_folded_flow_halves_the_products() -> None:
    net, x = small(), rand(1, 9, 4, 4)
    before = count_macs_of(net.flow, (x,)).pure
    fold_flow(net, ())
    per_pixel = count_macs_of(net.flow, (x,)).pure / 16
    assert before / 16 == 5 * 2 * (9 * 25 + 25 * 25 + 25 * 9)
    assert per_pixel == 5 * 2 * 25 * 25 + 2 * 25 * 5 * 9


def test_flow_with_other_masks_is_declined() -> None:
    net = small()
    net.get_buffer("flow.net.4.mask").fill_(1)
    assert fold_flow(net, ()).declined == [("flow", "its masks do not alternate")]
    assert isinstance(net.flow, KernelPrior)


def test_folded_flow_is_as_accurate_as_the_flow() -> None:
    """In float32, also if a pixel of the kernels hardly varied in training."""
    net = small(1)
    for norm in net.modules():
        if isinstance(norm, FlowBatchNorm):
            norm.running_var[::3] = 1e-7
            norm.running_mean[::3] = -5
    z, folded = rand(1, 9, 32, 32), copy.deepcopy(net)
    fold_flow(folded, ())
    assert isinstance(folded.flow, FoldedFlow)
    order, factor = folded.flow.order, 1 / (1 - 2e-6)
    with torch.no_grad():
        exact = net.flow(z)[:, order]
        plain = net.flow.float()(z.float())[:, order].double()
        sorted_halves = factor * folded.flow.float()(z[:, order].float()).double()
    assert (sorted_halves - exact).abs().max() < 2 * (plain - exact).abs().max()


def test_all_folds_in_a_row() -> None:
    net = small().float()
    folded, reports = reparameterize(net, EXACT_PASSES, (image(2, 3, 21, 33),))
    changed = {report.name: set(report.changed) for report in reports}
    assert changed["fold_flow"] == {"flow"}
    assert changed["remove_dead_branches"] == {"kernel_down.2", "kernel_down.3"}
    assert {"encoders.0.0.norm1", "encoders.2.0.norm2"} <= changed["fold_layer_norm"]
    assert {"encoders.0.0.beta", "encoders.2.0.gamma"} <= changed["fold_residual_scale"]
    x = image(1, 3, 40, 24, seed=1).float()
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x), **FOLDED_FLOAT32)
