"""ALGNet, DHNet, AIBNet and UFPNet can start out as a NAFNet, and train from there."""

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
from deblur_export.models.training.inherit import inherit

HEIRS = ("algnet", "dhnet", "aibnet", "ufpnet")
BLOCKS: dict[str, Any] = {"encoder_blocks": [1, 1, 1, 2], "middle_blocks": 1}
UNUSED = {  # parameters of the official code without a use
    "algnet": r"\.(conv3_2|gamma)\b",
    "ufpnet": r"kernel_down\.[23]\.",
}


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def donor(width: int = 8, **arguments: Any) -> NAFNet:
    """With random weights, scales of the residuals included, in float64."""
    spec = models.get("nafnet")
    net = spec.build(**{**spec.variants["tiny"], **BLOCKS, "width": width, **arguments})
    randomize(net, spec, 3)
    return cast(NAFNet, net.double().eval())


def heir(name: str, **arguments: Any) -> nn.Module:
    """With random weights too: none of them may be left to show, or hide what is to learn."""
    spec = models.get(name)
    net = spec.build(**{**spec.variants["tiny"], **BLOCKS, **arguments})
    randomize(net, spec, 5)
    phases.prepare(net, fresh=True)
    return net.double()


@pytest.mark.parametrize("name", HEIRS)
def test_it_computes_what_the_donor_does(name: str) -> None:
    net, given, x = heir(name).eval(), donor(), image(2, 3, 48, 64)
    inherit(net, given)
    with torch.no_grad():
        expected = given(x).clamp(0, 1) if name == "ufpnet" else given(x)
        assert (expected - x).abs().max() > 1e-2
        torch.testing.assert_close(net(x), expected, atol=1e-12, rtol=0)


def test_rank_zero_is_nafnets_block() -> None:
    net, given, x = heir("dhnet", rank=0).eval(), donor(), image(1, 3, 32, 32)
    inherit(net, given)
    with torch.no_grad():
        torch.testing.assert_close(net(x), given(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", HEIRS)
def test_what_it_adds_learns(name: str) -> None:
    """After some steps everything that trains has a gradient. A new sub-decoder needs a step a
    scale: its first weights let the gradient pass to the next coarser one only then."""
    net = heir(name).train()
    inherit(net, donor())
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


def test_fewer_blocks_are_the_last_ones() -> None:
    net, given, x = heir("dhnet").eval(), donor(encoder_blocks=[1, 1, 1, 5]), image(1, 3, 32, 32)
    inherit(net, given)
    given.encoders[3] = cast(nn.Sequential, given.encoders[3])[-2:]
    with torch.no_grad():
        torch.testing.assert_close(net(x), given(x), atol=1e-12, rtol=0)


def test_more_blocks_do_nothing() -> None:
    net, given, x = heir("algnet").eval(), donor(encoder_blocks=[1, 1, 1, 1]), image(1, 3, 32, 32)
    inherit(net, given)
    with torch.no_grad():
        torch.testing.assert_close(net(x), given(x), atol=1e-12, rtol=0)


def test_a_later_sub_decoder_starts_from_the_one_before() -> None:
    net = cast(AIBNet, load_model("aibnet", "tiny", "random:1").net.double())
    x = image(1, 3, 48, 48)
    with torch.no_grad():
        with phases.presented(net, 0):
            before = net(x)
        assert (net(x) - before).abs().max() > 1e-3
        phases.begin(net, 1)
        torch.testing.assert_close(net(x), before, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [n for n in models.NAMES if n not in HEIRS])
def test_the_others_cannot(name: str) -> None:
    spec = models.get(name)
    with pytest.raises(DeblurExportError, match="does not contain a NAFNet"):
        inherit(spec.build(**spec.variants["tiny"]), donor().float())


def test_the_widths_must_agree() -> None:
    with pytest.raises(DeblurExportError, match="4 channels wide, this DHNet 8"):
        inherit(heir("dhnet"), donor(width=4))
