"""The exact rewrites: each by itself, all of them in order, and what they must refuse."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.errors import CheckFailedError
from deblur_export.export.reparam import EXACT_PASSES
from deblur_export.export.reparam.fold_layer_norm import fold_layer_norm
from deblur_export.export.reparam.fold_mask_threshold import fold_mask_threshold
from deblur_export.export.reparam.fold_motion_interpolation import fold_motion_interpolation
from deblur_export.export.reparam.fold_residual_scale import fold_residual_scale
from deblur_export.export.reparam.infra import (
    TOLERANCE,
    Changes,
    PassReport,
    Rewrite,
    reparameterize,
)
from deblur_export.models.blocks.naf import LayerNorm2d
from deblur_export.models.m2aenet import M2AENet
from deblur_export.models.random_weights import randomize
from tests.tolerances import FOLDED_FLOAT32, NETWORK_FLOAT64

PROBE = torch.rand(2, 3, 41, 37, generator=torch.Generator().manual_seed(0))
SHAPES = [(1, 3, 16, 16), (2, 3, 33, 50), (1, 3, 7, 3)]
M2AS = [f"encoders.3.{i}" for i in range(6)]  # of the tiny variant
NAF = [
    *("encoders.0.0", "encoders.1.0", "encoders.2.0", "middle_blks.0"),
    *(f"decoders.{i}.0" for i in range(4)),
]


def tiny(name: str, **arguments: Any) -> nn.Module:
    spec = models.get(name)
    net = spec.build(**{**spec.variants["tiny"], **arguments})
    randomize(net, spec, 0)
    return net.eval()


def image(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def assert_same(net: nn.Module, folded: nn.Module, dtype: torch.dtype) -> None:
    tolerance = NETWORK_FLOAT64 if dtype == torch.float64 else FOLDED_FLOAT32
    with torch.no_grad():
        for shape in SHAPES:
            x = image(shape, dtype)
            torch.testing.assert_close(folded(x), net(x), **tolerance)


def of(blocks: list[str], *leaves: str) -> set[str]:
    return {f"{block}.{leaf}" for block in blocks for leaf in leaves}


# What each pass must change in each network, and the keys that disappear with it.
CHANGED: dict[tuple[str, str], set[str]] = {
    ("fold_layer_norm", "nafnet"): of(NAF + M2AS, "norm1", "norm2"),
    ("fold_layer_norm", "m2aenet"): of(NAF, "norm1", "norm2") | of(M2AS, "norm2"),
    ("fold_residual_scale", "nafnet"): of(NAF + M2AS, "beta", "gamma"),
    ("fold_residual_scale", "m2aenet"): of(NAF + M2AS, "beta", "gamma"),
    ("fold_motion_interpolation", "m2aenet"): {"motion_analyzer"},
    ("fold_mask_threshold", "m2aenet"): {"mask_predictor"},
}
DETAILED = ("m2aenet", "nafnet")
LEAVES = {"fold_layer_norm": [".weight", ".bias"], "fold_residual_scale": [""]}


@pytest.mark.parametrize("name", ["m2aenet", pytest.param("nafnet", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("title", "rewrite"), EXACT_PASSES)
def test_pass_by_itself(title: str, rewrite: Rewrite, name: str) -> None:
    net = tiny(name).double()
    folded, (report,) = reparameterize(net, [(title, rewrite)], (PROBE,))
    expected = CHANGED.get((title, name), set())
    assert sorted(report.changed) == sorted(expected)
    assert report.max_error <= TOLERANCE
    gone = net.state_dict().keys() - folded.state_dict().keys()
    assert gone == {key + leaf for key in expected for leaf in LEAVES.get(title, [])}
    assert not folded.state_dict().keys() - net.state_dict().keys()
    assert_same(net, folded, torch.float64)


@cache
def chain(name: str) -> tuple[nn.Module, nn.Module, list[PassReport]]:
    net = tiny(name)
    return net, *reparameterize(net, EXACT_PASSES, (PROBE,))


@pytest.mark.parametrize("name", models.NAMES)
def test_whole_chain(name: str) -> None:
    """One test per network, because verifying the chain takes seconds."""
    net, folded, reports = chain(name)
    assert [report.name for report in reports] == [title for title, _ in EXACT_PASSES]
    for report in reports:
        if name in DETAILED:
            assert set(report.changed) == CHANGED.get((report.name, name), set())
        assert report.max_error <= TOLERANCE
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.float32}
    assert not any(module.training for module in folded.modules())
    assert_same(net, folded, torch.float32)
    assert_counted(net, folded, reports)
    assert_untouched(net, tiny(name))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n not in DETAILED)) for n in models.NAMES],
)
def test_second_run_declines(name: str) -> None:
    _, folded, reports = chain(name)
    assert_second_run_declines(folded, reports)


def assert_counted(net: nn.Module, folded: nn.Module, reports: list[PassReport]) -> None:
    assert reports[0].parameters_before == sum(p.numel() for p in net.parameters())
    assert reports[-1].parameters_after == sum(p.numel() for p in folded.parameters())
    for before, after in itertools.pairwise(reports):
        assert after.parameters_before == before.parameters_after
        assert after.macs_before == before.macs_after
    assert json.loads(json.dumps([dataclasses.asdict(report) for report in reports]))


def assert_untouched(net: nn.Module, untouched: nn.Module) -> None:
    assert net.state_dict().keys() == untouched.state_dict().keys()
    for key, value in untouched.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key
        assert net.state_dict()[key].dtype == value.dtype


def assert_second_run_declines(folded: nn.Module, first: list[PassReport]) -> None:
    again, reports = reparameterize(folded, EXACT_PASSES, (PROBE,))
    changed = {report.name: set(report.changed) for report in first}
    for report in reports:
        assert not report.changed
        already = {where for where, reason in report.declined if reason == "already folded"}
        if report.name not in ("fold_batch_norm", "remove_dead_branches"):  # nothing is left there
            assert already == changed[report.name]
    assert_same(folded, again, torch.float32)


def test_copied_layer_norm_is_declined_with_its_reason() -> None:
    reports = {report.name: report for report in chain("m2aenet")[2]}
    declined = dict(reports["fold_layer_norm"].declined)
    assert declined.keys() == of(M2AS, "norm1")
    assert set(declined.values()) == {
        "sharp pixels copy its output past conv1, which therefore cannot absorb it"
    }
    norm = chain("m2aenet")[1].get_submodule("encoders.3.0.norm1")
    assert isinstance(norm, LayerNorm2d)
    assert norm.weight is not None


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_folded_threshold_gives_the_same_mask(threshold: float) -> None:
    net = tiny("m2aenet", threshold=threshold).double()
    folded, _ = reparameterize(net, [("it", fold_mask_threshold)], (PROBE,))
    assert isinstance(net, M2AENet) and isinstance(folded, M2AENet)
    with torch.no_grad():
        features, _ = net.encode_shallow(image((2, 3, 96, 96), torch.float64))
        probability = net.mask_predictor(features).softmax(dim=1)[:, :1]
        scores = folded.mask_predictor(features)
    assert scores.shape[1] == 1
    assert torch.equal(folded.mask(scores), (probability > threshold).double())
    logit = probability.logit() - math.log(threshold / (1 - threshold))
    torch.testing.assert_close(scores, logit, **NETWORK_FLOAT64)


def test_folded_motion_predicts_all_offsets() -> None:
    net = tiny("m2aenet").double()
    folded, _ = reparameterize(net, [("it", fold_motion_interpolation)], (PROBE,))
    assert isinstance(net, M2AENet) and isinstance(folded, M2AENet)
    features = image((1, 64, 5, 7), torch.float64)
    assert folded.motion_analyzer.flow.out_channels == 18
    torch.testing.assert_close(
        folded.motion_analyzer(features), net.motion_analyzer(features), **NETWORK_FLOAT64
    )


def forget_bias(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    block = net.get_submodule("decoders.3.0")
    block.conv1.weight.data *= block.norm1.weight.data.view(1, -1, 1, 1)
    block.norm1.weight = block.norm1.bias = None
    return Changes(["decoders.3.0.norm1"])


def scale_intro(factor: float) -> Rewrite:
    def rewrite(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
        net.get_submodule("intro").weight.data *= factor
        return Changes(["intro"])

    return rewrite


@pytest.mark.parametrize(
    "wrong", [forget_bias, *map(scale_intro, (1 + 1e-7, -1.0, float("nan"), float("inf")))]
)
def test_wrong_rewrite_is_caught_and_named(wrong: Rewrite) -> None:
    passes = [("right", fold_residual_scale), ("wrong", wrong), ("late", fold_layer_norm)]
    begun: list[str] = []
    with pytest.raises(CheckFailedError, match="pass wrong changed the output by"):
        reparameterize(tiny("nafnet"), passes, (PROBE,), progress=begun.append)
    assert begun == ["right", "wrong"]


def test_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"net\.eval\(\)"):
        reparameterize(tiny("nafnet").train(), EXACT_PASSES, (PROBE,))
