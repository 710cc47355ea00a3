"""Parameters and multiply-adds compared with the published figures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.models.blocks.naf import GlobalAveragePool
from deblur_export.models.complexity import (
    count_macs,
    count_macs_of,
    count_parameters,
    m2aenet_macs_at,
)
from tests.tolerances import MACS_ANY_RULE, MACS_PTFLOPS, MACS_PURE

PAPER_SIZE = (1440, 2160)


def build(name: str, variant: str) -> nn.Module:
    with torch.device("meta"):
        return models.get(name).build(**models.get(name).variants[variant])


@pytest.mark.parametrize(
    ("name", "variant", "parameters"),
    [
        ("nafnet", "32", 17_111_907),
        ("nafnet", "64", 67_888_835),
        ("m2aenet", "base", 17_437_865),
    ],
)
def test_parameters(name: str, variant: str, parameters: int) -> None:
    assert count_parameters(build(name, variant)) == parameters


@pytest.mark.parametrize("name", models.NAMES)
def test_tiny_variants_are_small_but_not_trivial(name: str) -> None:
    assert 200_000 < count_parameters(build(name, "tiny")) < 900_000


def test_buffers_are_not_parameters() -> None:
    assert count_parameters(nn.BatchNorm2d(5)) == 10


@pytest.mark.parametrize(("variant", "gmacs"), [("32", 15.956), ("64", 63.055)])
def test_nafnet_pure_macs_at_256(variant: str, gmacs: float) -> None:
    pure = count_macs(build("nafnet", variant), 256, 256).pure
    assert pure == pytest.approx(gmacs * 1e9, rel=MACS_PURE)


def test_nafnet_macs_at_the_papers_size_are_those_of_ptflops() -> None:
    macs = count_macs(build("nafnet", "32"), 1436, 2152)
    assert macs.with_bias == pytest.approx(764e9, rel=MACS_PTFLOPS)
    assert macs.pure < 0.995 * macs.with_bias
    assert macs == count_macs(build("nafnet", "32"), *PAPER_SIZE), "padding is counted"


def test_nafnet_macs_as_published_at_256() -> None:
    pure = count_macs(build("nafnet", "32"), 256, 256).pure
    assert pure == pytest.approx(16.1e9, rel=MACS_ANY_RULE)


def test_nafnet_64_has_fewer_macs_than_published_by_every_rule() -> None:
    """Also with the blocks of the denoising configuration, as models/nafnet.py says."""
    with torch.device("meta"):
        denoising = models.get("nafnet").build(64, (2, 2, 4, 8), 12, (2, 2, 2, 2))
    largest = count_macs(denoising, 256, 256).with_bias
    assert largest == pytest.approx(63.6e9, rel=MACS_PTFLOPS)
    assert count_macs(build("nafnet", "64"), 256, 256).with_bias < largest < 0.98 * 65e9


def test_m2aenet_unpruned_macs() -> None:
    pure = count_macs(build("m2aenet", "base"), *PAPER_SIZE).pure
    assert pure == pytest.approx(0.7723e12, rel=MACS_PURE)


@pytest.mark.parametrize(
    ("blurred", "tera"), [(1.0, 0.772), (0.5, 0.680), (0.27, 0.638), (0.10, 0.606), (0.05, 0.597)]
)
def test_m2aenet_macs_depend_on_the_fraction_of_blurred_pixels(blurred: float, tera: float) -> None:
    macs = m2aenet_macs_at(build("m2aenet", "base"), *PAPER_SIZE, blurred)
    assert macs == pytest.approx(tera * 1e12, rel=MACS_PTFLOPS)


def test_prunable_macs_are_the_first_two_convolutions_of_28_blocks() -> None:
    height, width = PAPER_SIZE
    pixels, channels = height // 8 * width // 8, 256
    per_block = pixels * (2 * channels * channels + 2 * channels * 9)
    assert count_macs(build("m2aenet", "base"), *PAPER_SIZE).prunable == 28 * per_block
    assert count_macs(build("nafnet", "tiny"), 32, 32).prunable == 0


def test_counting_rules_on_one_layer_each() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 6x5x8 outputs of 27 products; bias: 240
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # 240 outputs of 9 products
        nn.PixelShuffle(2),  # moves 240 values
        GlobalAveragePool(),  # reads 240 values
        nn.Conv2d(2, 4, 1),  # 4 outputs of 2 products; bias: 4
    )
    macs = count_macs_of(net, (torch.zeros(1, 3, 6, 5),))
    assert macs.pure == 240 * 27 + 240 * 9 + 8
    assert macs.with_bias - macs.pure == 240 + 240 + 240 + 4


class MakesTensors(nn.Conv2d):
    """Makes tensors in its forward, on the default device and outside of torch."""

    def __init__(self, values: bool) -> None:
        super().__init__(3, 4, 1)
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        number = float(x.mean()) if self.values else 1.0
        return super().forward(x * torch.full((1, 3, 1, 1), number) + torch.zeros(1))


@pytest.mark.parametrize("values", [False, True])
def test_a_network_that_makes_tensors_or_reads_values_is_counted(values: bool) -> None:
    assert count_macs_of(MakesTensors(values), (torch.zeros(1, 3, 2, 2),)).pure == 4 * 12


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.others = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.others:
            x = layer(x)
        return x


def test_a_module_list_is_left_out_like_a_module() -> None:
    """A list is never called, so that only its members have counts; a member's are counted once."""
    inputs = (torch.zeros(1, 3, 2, 2),)
    assert count_macs_of(Listed(), inputs).pure == 4 * (12 + 16 + 16)
    for without, products in (("others", 12), ("others.0", 12 + 16), ("first", 16 + 16)):
        assert count_macs_of(Listed(), inputs, (without,)).pure == 4 * products


def test_counting_does_not_change_the_network() -> None:
    net = nn.Conv2d(3, 4, 3).train()
    before = net.weight.clone()
    count_macs(net, 8, 8)
    assert net.training
    assert net.weight.device.type == "cpu"
    assert torch.equal(net.weight, before)
    assert not net._forward_hooks
