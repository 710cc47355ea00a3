"""The tables of networks: sizes, and how they compare with the papers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from rich.table import Table
from torch import nn

from deblur_export import models
from deblur_export.models.complexity import count_macs, count_parameters
from deblur_export.models.spec import Published


def models_table() -> Table:
    """Every variant with its measured size beside the paper's figures."""
    table = Table("model", "variant", "parameters", "GMACs", "published")
    for name in models.NAMES:
        spec = models.get(name)
        for variant in spec.variants:
            net = _build(name, variant)
            table.add_row(
                spec.name,
                variant,
                f"{count_parameters(net):,}",
                f"{count_macs(net, 256, 256).pure / 1e9:.2f}",
                "; ".join(map(str, spec.published.get(variant, ()))),
            )
    return table


def sources() -> list[str]:
    """One line a network: its name and where it comes from."""
    return [f"{spec.name}: {spec.source}" for spec in map(models.get, models.NAMES)]


@dataclass(frozen=True)
class Comparison:
    """One published figure beside ours, counted by the same rule. `unit` is M or GMACs.

    Ours is counted when it is first asked for, so that listing the figures builds no network.
    """

    name: str
    variant: str
    unit: str
    published: float
    figure: Published

    @cached_property
    def ours(self) -> float:
        """In `unit`."""
        net = _build(self.name, self.variant)
        if self.unit == "M":
            return count_parameters(net, self.figure.without) / 1e6
        macs = count_macs(net, *self.figure.size, self.figure.without)
        if self.figure.convolutions:
            return macs.convolutions / 1e9
        return (macs.with_bias if self.figure.with_bias else macs.pure) / 1e9

    @property
    def difference(self) -> float:
        """Relative to the published figure."""
        return self.ours / self.published - 1

    @property
    def within_tolerance(self) -> bool:
        return abs(self.difference) <= self.figure.tolerance


def comparisons() -> Iterator[Comparison]:
    """Every figure of every paper."""
    for name in models.NAMES:
        for variant, figures in models.get(name).published.items():
            for figure in figures:
                if figure.parameters is not None:
                    yield Comparison(name, variant, "M", figure.parameters / 1e6, figure)
                if figure.gmacs is not None:
                    yield Comparison(name, variant, "GMACs", figure.gmacs, figure)


@cache
def _build(name: str, variant: str) -> nn.Module:
    """In eval mode on the meta device: sizes without values."""
    spec = models.get(name)
    with torch.device("meta"):
        return spec.build(**spec.variants[variant]).eval()
