"""ALGNet, DHNet, AIBNet and UFPNet can be initialised as a NAFNet and trained from there."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.aibnet import AIBNet
from deblur_export.models.checkpoint import load_model
from deblur_export.models.nafnet import NAFNet
from deblur_export.models.random_weights import randomize
from deblur_export.models.training import phases
from deblur_export.models.training.nafnet_weights import copy_nafnet_weights

EXTENSIONS = ("algnet", "dhnet", "aibnet", "ufpnet")
BLOCKS: dict[str, Any] = {"encoder_blocks": [1, 1, 1, 2], "middle_blocks": 1}
UNUSED = {  # parameters that the official code does not use
    "algnet": r"\.(conv3_2|gamma)\b",
    "ufpnet": r"kernel_down\.[23]\.",
}


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def nafnet(width: int = 8, **arguments: Any) -> NAFNet:
    """A NAFNet in float64 with random weights, including the scales of residual branches."""
    spec = models.get("nafnet")
    net = spec.build(**{**spec.variants["tiny"], **BLOCKS, "width": width, **arguments})
    randomize(net, spec, 3)
    return cast(NAFNet, net.double().eval())


def extension(name: str, **arguments: Any) -> nn.Module:
    """A network that extends NAFNet, with random weights.

    None of them may have an effect after initialisation, or keep a part from learning.
    """
    spec = models.get(name)
    net = spec.build(**{**spec.variants["tiny"], **BLOCKS, **arguments})
    randomize(net, spec, 5)
    phases.prepare(net, fresh=True)
    return net.double()


@pytest.mark.parametrize("name", EXTENSIONS)
def test_it_computes_the_same_as_the_source(name: str) -> None:
    net, source, x = extension(name).eval(), nafnet(), image(2, 3, 48, 64)
    copy_nafnet_weights(net, source)
    with torch.no_grad():
        expected = source(x).clamp(0, 1) if name == "ufpnet" else source(x)
        assert (expected - x).abs().max() > 1e-2
        torch.testing.assert_close(net(x), expected, atol=1e-12, rtol=0)


def test_volterra_filter_of_rank_zero_is_nafnets_gate() -> None:
    net, source, x = extension("dhnet", rank=0).eval(), nafnet(), image(1, 3, 32, 32)
    copy_nafnet_weights(net, source)
    with torch.no_grad():
        torch.testing.assert_close(net(x), source(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_added_parts_learn(name: str) -> None:
    """After some steps all trained parameters have a gradient. A new sub-decoder needs one step per
    scale: only then do its initial weights let the gradient pass to the next coarser scale."""
    net = extension(name).train()
    copy_nafnet_weights(net, nafnet())
    for phase in range(phases.count(net)):
        phases.enter(net, phase, encoder=True)
        trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
        optimizer = torch.optim.SGD(trained.values(), lr=1e-2)
        x, y = image(2, 3, 32, 32), image(2, 3, 32, 32)
        for _ in range(3 if phase == 0 else 7):
            optimizer.zero_grad()
            output = phases.run(net, x)
            outputs = output if name == "algnet" else [getattr(output, "restored", output)]
            steps = (8, 4, 2, 1) if name == "algnet" else (1,)
            losses = [
                (image_ - y[..., ::step, ::step]).square().mean()
                for image_, step in zip(outputs, steps, strict=True)
            ]
            torch.stack(losses).sum().backward()
            optimizer.step()
        still = [n for n, p in trained.items() if p.grad is None or not p.grad.abs().max() > 0]
        assert [n for n in still if not re.search(UNUSED.get(name, "^$"), n)] == []


def test_a_stage_with_fewer_blocks_gets_the_last_ones() -> None:
    net, source, x = (
        extension("dhnet").eval(),
        nafnet(encoder_blocks=[1, 1, 1, 5]),
        image(1, 3, 32, 32),
    )
    copy_nafnet_weights(net, source)
    source.encoders[3] = cast(nn.Sequential, source.encoders[3])[-2:]
    with torch.no_grad():
        torch.testing.assert_close(net(x), source(x), atol=1e-12, rtol=0)


def test_additional_blocks_have_no_effect() -> None:
    net, source, x = (
        extension("algnet").eval(),
        nafnet(encoder_blocks=[1, 1, 1, 1]),
        image(1, 3, 32, 32),
    )
    copy_nafnet_weights(net, source)
    with torch.no_grad():
        torch.testing.assert_close(net(x), source(x), atol=1e-12, rtol=0)


def test_a_later_sub_decoder_starts_from_the_previous_one() -> None:
    net = cast(AIBNet, load_model("aibnet", "tiny", "random:1").net.double())
    x = image(1, 3, 48, 48)
    with torch.no_grad():
        with phases.presented(net, 0):
            before = net(x)
        assert (net(x) - before).abs().max() > 1e-3
        phases.begin(net, 1)
        torch.testing.assert_close(net(x), before, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [n for n in models.NAMES if n not in EXTENSIONS])
def test_other_networks_are_refused(name: str) -> None:
    spec = models.get(name)
    with pytest.raises(DeblurExportError, match="does not contain a NAFNet"):
        copy_nafnet_weights(spec.build(**spec.variants["tiny"]), nafnet().float())


def test_different_widths_are_refused() -> None:
    with pytest.raises(DeblurExportError, match="4 channels wide, this DHNet 8"):
        copy_nafnet_weights(extension("dhnet"), nafnet(width=4))
