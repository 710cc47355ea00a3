"""Readings of the text that the code does not follow: what their counts decide, and what not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from deblur_export import models
from deblur_export.models.complexity import count_parameters
from deblur_export.models.m2aenet import MaskPredictor
from tests.models.test_nafnet import filled, rand
from tests.tolerances import OP_FLOAT64

PUBLISHED = 17.44  # M2AENet, millions of parameters


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/readings.py, as the scripts of its folder see it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import readings

    return readings


def test_parameters_of_m2aenet_leave_two_readings(readings: ModuleType) -> None:
    """Each equation alone misses the published figure; the code and all of them together fit."""
    with torch.device("meta"):
        net = models.get("m2aenet").build(**models.get("m2aenet").variants["base"])
    residual_scales = readings.of_stage(net, "beta", "gamma")
    bias = readings.of_stage(net, "deform.bias")
    here = count_parameters(net), count_parameters(net, residual_scales)
    readings.concatenate_all(net)
    text = count_parameters(net), count_parameters(net, [*residual_scales, *bias])
    assert here == (17_437_865, 17_423_529)
    assert text == (17_470_633, 17_441_961)
    fits = [round(parameters / 1e6, 2) == PUBLISHED for parameters in (*here, *text)]
    assert fits == [True, False, False, True]


def test_the_predictor_is_a_special_case_of_equation_1(readings: ModuleType) -> None:
    """So that its weights would convert: only the count speaks against the equation."""
    code, x = filled(MaskPredictor(8)), rand(2, 8, 3, 5)
    text = readings.WholeConcatenation(8).double()
    state = code.state_dict()
    weight = torch.zeros(4, 16, dtype=torch.float64)
    weight[:, :4], weight[:, 12:] = state["head.0.weight"].split(4, dim=1)
    text.load_state_dict({**state, "head.0.weight": weight})
    with torch.no_grad():
        torch.testing.assert_close(text(x), code(x), **OP_FLOAT64)
