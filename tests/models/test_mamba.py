"""Mamba: official names and initial values, its formula, causality."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models.blocks.mamba import Mamba, project
from tests.models.test_nafnet import filled, rand
from tests.plugins.cases.selective_scan import sequential
from tests.tolerances import OP_FLOAT64


def mamba_formula(layer: Mamba, x: Tensor) -> Tensor:
    """[N, C, L] -> [N, C, L], computed step by step with tokens as the first axis."""
    assert layer.A_log is not None
    tokens, length = x.transpose(1, 2), x.shape[2]
    wide, states = layer.A_log.shape
    values, gate = (tokens @ layer.in_proj.weight.T).split(wide, dim=2)
    taps, before = layer.conv1d.weight[:, 0], torch.zeros_like(values[:, :1])
    shifted = [torch.cat([before] * lag + [values], dim=1)[:, :length] for lag in (3, 2, 1, 0)]
    values = layer.conv1d.bias + sum(taps[:, k] * part for k, part in enumerate(shifted))
    values = values / (1 + (-values).exp())
    mixed = values @ layer.x_proj.weight.T
    rank = mixed.shape[2] - 2 * states
    step, inputs, readout = mixed[..., :rank], mixed[..., rank:-states], mixed[..., -states:]
    y = sequential(
        values.transpose(1, 2),
        (step @ layer.dt_proj.weight.T).transpose(1, 2),
        -layer.A_log.exp(),
        inputs.transpose(1, 2),
        readout.transpose(1, 2),
        layer.D,
        gate.transpose(1, 2),
        layer.dt_proj.bias,
        1,
    )
    return (y.transpose(1, 2) @ layer.out_proj.weight.T).transpose(1, 2)


def small(channels: int, states: int = 4) -> Mamba:
    layer = filled(Mamba(channels, states))
    for projection in (layer.in_proj, layer.x_proj, layer.out_proj):
        projection.weight.data /= math.sqrt(projection.in_features)
    return layer


@pytest.mark.parametrize(("channels", "length"), [(3, 1), (3, 2), (5, 17), (20, 6), (16, 40)])
def test_layer_is_the_formula(channels: int, length: int) -> None:
    layer, x = small(channels), rand(2, channels, length, seed=9)
    torch.testing.assert_close(layer(x), mamba_formula(layer, x), **OP_FLOAT64)


@pytest.mark.parametrize(("channels", "rank"), [(8, 1), (16, 1), (17, 2), (64, 4)])
def test_state_dict_has_the_official_names_and_shapes(channels: int, rank: int) -> None:
    wide = 2 * channels
    assert {key: tuple(value.shape) for key, value in Mamba(channels).state_dict().items()} == {
        "A_log": (wide, 32),
        "D": (wide,),
        "in_proj.weight": (2 * wide, channels),
        "conv1d.weight": (wide, 1, 4),
        "conv1d.bias": (wide,),
        "x_proj.weight": (rank + 64, wide),
        "dt_proj.weight": (wide, rank),
        "dt_proj.bias": (wide,),
        "out_proj.weight": (channels, wide),
    }


def test_initial_values_are_the_official_ones() -> None:
    torch.manual_seed(0)
    layer = Mamba(64)
    assert layer.A_log is not None
    rates = torch.arange(1, 33, dtype=torch.float32).expand(128, 32)
    torch.testing.assert_close(layer.A_log.exp(), rates)
    assert torch.equal(layer.D, torch.ones(128))
    steps = F.softplus(layer.dt_proj.bias)
    assert 1e-3 * 0.999 < steps.min() < 2e-3
    assert 0.05 < steps.max() < 0.1 * 1.001
    assert steps.median() < 0.02, "uniform in the logarithm"
    assert 0.45 < layer.dt_proj.weight.abs().max() <= 4**-0.5


def test_an_output_depends_on_earlier_positions_only() -> None:
    layer, x = small(4), rand(1, 4, 30)
    changed = x.clone()
    changed[..., 12] += 1
    difference = (layer(changed) - layer(x)).abs().amax(dim=(0, 1))
    assert torch.count_nonzero(difference[:12]) == 0
    assert torch.count_nonzero(difference[12:]) == 18


def test_rates_given_instead_of_their_logarithms() -> None:
    layer, x = small(4), rand(1, 4, 9)
    expected = layer(x)
    layer.A, layer.A_log = nn.Parameter(layer.rates().detach()), None
    torch.testing.assert_close(layer(x), expected, **OP_FLOAT64)


def test_projection_with_a_bias() -> None:
    layer, x = filled(nn.Linear(5, 7)), rand(2, 5, 11)
    torch.testing.assert_close(project(x, layer), layer(x.mT).mT, **OP_FLOAT64)
