"""Progress, learning rate and the moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deblur_export.models.training.schedule import Average, Schedule


def test_the_nearer_limit_counts() -> None:
    schedule = Schedule(steps=100, minutes=2)
    assert schedule.progress(50, 30) == 0.5
    assert schedule.progress(10, 90) == 0.75
    assert Schedule(steps=None, minutes=2).progress(10**9, 60) == 0.5
    assert Schedule(steps=100, minutes=None).progress(100, 1e9) == 1


def test_rate_warms_up_and_falls_along_a_cosine() -> None:
    schedule = Schedule(100, None, lr=1e-3, lowest=1e-6, warmup=0.1)
    assert schedule.rate(0) == pytest.approx(1e-6)
    assert schedule.rate(0.05) == pytest.approx((1e-3 + 1e-6) / 2)
    assert schedule.rate(0.1) == pytest.approx(1e-3)
    assert schedule.rate(0.55) == pytest.approx((1e-3 + 1e-6) / 2)
    assert schedule.rate(1) == pytest.approx(1e-6)
    assert schedule.rate(1.7) == pytest.approx(1e-6)


def test_every_phase_has_a_schedule_of_its_own() -> None:
    one, two = Schedule(100, None), Schedule(100, None, phases=2)
    assert [two.phase(p) for p in (0, 0.49, 0.5, 0.99, 1, 2)] == [0, 0, 1, 1, 1, 1]
    for progress in (0.1, 0.4, 0.9):
        assert two.rate(progress / 2) == pytest.approx(one.rate(progress))
        assert two.rate(0.5 + progress / 2) == pytest.approx(one.rate(progress))


class Scalar(nn.Module):
    """One weight, one statistic, one counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(4.0))
        self.register_buffer("mean", torch.tensor(4.0))
        self.register_buffer("count", torch.tensor(0))


def test_average_follows_its_formula() -> None:
    net, decay = Scalar(), 0.3
    average, expected = Average(net, decay), 4.0
    for n, value in enumerate((1.0, 5.0, -2.0, 3.0), start=1):
        net.weight.data.fill_(value)
        net.get_buffer("mean").fill_(value)
        net.get_buffer("count").fill_(n)
        average.update(net)
        fraction = 1 - min(decay, (1 + n) / (10 + n))
        expected += fraction * (value - expected)
    assert average.tensors["weight"].item() == pytest.approx(expected)
    assert average.tensors["mean"].item() == pytest.approx(expected)
    assert average.tensors["count"].item() == 4


def test_early_averages_forget_the_start() -> None:
    net = Scalar()
    average = Average(net, 0.999)
    net.weight.data.fill_(0.0)
    for _ in range(20):
        average.update(net)
    assert average.tensors["weight"].item() < 0.02
