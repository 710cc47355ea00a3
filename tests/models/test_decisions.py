"""Decision modules tell a borderline difference from a wrong one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deblur_export.models.blocks.aibnet_hfs import Degrees, kept
from deblur_export.models.blocks.decision import Decision
from deblur_export.models.blocks.saphn_points import STEPS, BestQuarter
from deblur_export.models.m2aenet import MaskThreshold


def scores(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CASES: dict[str, tuple[Decision, Tensor]] = {
    "mask": (MaskThreshold(), scores(2, 2, 6, 8)),
    "ranking": (BestQuarter(), (scores(2, 1, 8, 12) * STEPS).round()),
    "degrees": (Degrees(), scores(2, 12, 12)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_choice_does_not_differ(name: str) -> None:
    module, values = CASES[name]
    own = module(values)
    assert module.is_choice(own, own)
    assert not module.differences(values, own, own).any()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [0.3, 0.01])
def test_distance_is_that_of_the_scores_between_the_choices(name: str, size: float) -> None:
    """Scores that moved by at most `size` lie at most two of it from the border they crossed."""
    module, values = CASES[name]
    unit = {"mask": 1.0, "ranking": STEPS, "degrees": 1.0}[name]
    noise = (
        size * unit * (torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) - 0.5)
    )
    own, other = module(values), module(values + noise)
    differing = module.differences(values, own, other)
    assert differing.any() or size < 0.1
    distance = module.distance(values, own, other)
    assert distance.shape == differing.shape
    assert (distance[differing] <= 2 * size).all()


def test_a_logit_far_from_every_threshold_it_crosses_is_far() -> None:
    """Being close to one threshold is no excuse for crossing all four."""
    logits = torch.arange(20.0, dtype=torch.float64).repeat(20, 1).unsqueeze(0)
    module = Degrees()
    own = module(logits)
    assert own[0, 0].tolist() == [sum(20 - i <= k for k in kept(20)) for i in range(20)]
    other = own.clone()
    other[..., 4] = 4
    assert (module.distance(logits, own, other)[..., :4] == 0).all()
    expected = (10 - 4) / 19  # the lowest threshold is 4 and the highest 10, the largest logit 19
    torch.testing.assert_close(
        module.distance(logits, own, other)[..., 4], torch.full((1, 20), expected).double()
    )


@pytest.mark.parametrize(
    ("name", "wrong"), [("mask", 0.5), ("degrees", 2.5), ("degrees", 5.0), ("degrees", -1.0)]
)
def test_values_that_are_no_choice(name: str, wrong: float) -> None:
    module, values = CASES[name]
    own = module(values)
    other = own.clone()
    other.view(-1)[3] = wrong
    assert not module.is_choice(own, other)
