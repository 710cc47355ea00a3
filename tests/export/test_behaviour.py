"""What a network must be, and must not do, before anything is made of it."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from deblur_export.errors import DeblurExportError
from deblur_export.export.behaviour import check_behaviour, check_module, notes_on_statistics
from deblur_export.export.pipeline import ExportOptions, trace_model
from deblur_export.models.image_spec import ImageSpec
from tests.export import traps


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (traps.Noise, "two runs on one image differ: the network is random, first in noise"),
        (traps.Remembers, "the network keeps state, first in pool"),
        (traps.WritesInput, "writes into its input"),
        (traps.Infinite, "NaN or infinity"),
        (traps.Pair, "returns a list, not one tensor"),
        (traps.Fails, r"fails on an image of .*\(.*\.py:\d+\)"),
    ],
)
def test_refused(network: type[nn.Module], message: str) -> None:
    """Before the folds, which would take the blame for it."""
    for check in (
        lambda net: check_behaviour(net, (1, 3, 16, 24)),
        lambda net: trace_model(traps.loaded(net, ImageSpec(8)), ExportOptions()),
    ):
        with pytest.raises(DeblurExportError, match=message) as raised:
            check(network().eval())
        assert "\n" not in str(raised.value)


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (traps.Convolution, "the network is a type, not a torch.nn.Module"),
        (Nothing().eval(), "no parameters and no buffers"),
        (traps.Convolution(), "the network is in training mode; call net.eval()"),
        (nn.Sequential(traps.Convolution()).eval().half(), "0.conv.weight .* is float16; .*float"),
        (traps.Convolution().eval().double(), "conv.weight of the network is float64"),
        (traps.Convolution().eval().to("meta"), "conv.weight of the network is on the meta device"),
    ],
)
def test_modules_that_cannot_be_exported_as_they_are(net: object, message: str) -> None:
    with pytest.raises(DeblurExportError) as raised:
        check_module(net)
    assert re.search(message, str(raised.value))
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
def test_module_on_a_gpu() -> None:
    with pytest.raises(DeblurExportError, match=r"is on cuda:0; call net\.cpu\(\)"):
        check_module(traps.Convolution().eval().cuda())


def test_a_layer_left_in_training_mode_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    net[1].train()
    with pytest.raises(DeblurExportError, match="1 is in training mode"):
        check_module(net)


def test_instance_norms_with_running_statistics_are_noted() -> None:
    net = nn.Sequential(nn.InstanceNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True))
    (note,) = notes_on_statistics(net)
    assert note.startswith("1 instance norms, first 1, use running statistics")
    assert notes_on_statistics(net[0]) == ()
