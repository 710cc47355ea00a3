"""Decision modules distinguish differences due to rounding from wrong ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deblur_export.models.blocks.aibnet_attention import ChannelAttention, logit_bound
from deblur_export.models.blocks.aibnet_hfs import Degrees, top_counts
from deblur_export.models.blocks.decision import Decision, Inputs
from deblur_export.models.blocks.saphn_points import STEPS, BestQuarter
from deblur_export.models.m2aenet import MaskThreshold


def scores(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CASES: dict[str, tuple[Decision, Inputs]] = {
    "mask": (MaskThreshold(), (scores(2, 2, 6, 8),)),
    "ranking": (BestQuarter(), ((scores(2, 1, 8, 12) * STEPS).round(),)),
    "degrees": (Degrees(True), (scores(2, 12, 12), *2 * (scores(2, 12, 5),), None)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_choice_does_not_differ(name: str) -> None:
    module, inputs = CASES[name]
    own = module(*inputs)
    assert module.is_choice(own, own)
    assert not module.differences(inputs, own, own).any()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [0.3, 0.01])
def test_distance_is_bounded_by_the_change_of_the_scores(name: str, size: float) -> None:
    """Scores that changed by at most `size` are at most twice that from the threshold that they
    crossed."""
    module, inputs = CASES[name]
    values, *others = inputs
    unit = {"mask": 1.0, "ranking": STEPS, "degrees": 1.0}[name]
    noise = (
        size * unit * (torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) - 0.5)
    )
    own, other = module(*inputs), module(values + noise, *others)
    differing = module.differences(inputs, own, other)
    assert differing.any() or size < 0.1
    distance = module.distance(inputs, own, other)
    assert distance.shape == differing.shape
    assert (distance[differing] <= 2 * size).all()


def test_distance_is_to_the_farthest_of_the_crossed_thresholds() -> None:
    """A logit that is close to one threshold must not cross all four."""
    ones = torch.ones(1, 20, 1, dtype=torch.float64)
    logits = torch.arange(20.0, dtype=torch.float64).repeat(20, 1).unsqueeze(0)
    module, inputs = Degrees(), (logits, 8 * ones, 5 * ones, None)
    own = module(*inputs)
    assert own[0, 0].tolist() == [sum(20 - i <= k for k in top_counts(20)) for i in range(20)]
    other = own.clone()
    other[..., 4] = 4
    assert (module.distance(inputs, own, other)[..., :4] == 0).all()
    expected = (10 - 4) / 40  # the lowest threshold is 4 and the highest 10, none can exceed 40
    torch.testing.assert_close(
        module.distance(inputs, own, other)[..., 4], torch.full((1, 20), expected).double()
    )


@pytest.mark.parametrize(
    ("name", "wrong"), [("mask", 0.5), ("degrees", 2.5), ("degrees", 5.0), ("degrees", -1.0)]
)
def test_values_that_are_not_a_possible_choice(name: str, wrong: float) -> None:
    module, inputs = CASES[name]
    own = module(*inputs)
    other = own.clone()
    other.view(-1)[3] = wrong
    assert not module.is_choice(own, other)


@pytest.mark.parametrize("normalize_qk", [False, True])
def test_no_logit_exceeds_the_bound_and_one_reaches_it(normalize_qk: bool) -> None:
    attention = ChannelAttention(5, 3, normalize_qk)
    query, key = 3 * scores(2, 5, 7), scores(2, 5, 7)
    key[:, 2] *= 4  # the longest of each image
    query[1, 3] = -2 * key[1, 2]
    bound = logit_bound(query, key, attention.b, normalize_qk)
    logits = attention.logits(query, key).abs()
    assert (logits <= bound * (1 + 1e-12)).all()
    torch.testing.assert_close(logits[1, 3, 2], bound[1, 3, 0])
