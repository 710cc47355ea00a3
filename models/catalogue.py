"""Tables of the networks: their sizes, and how these compare with the figures of the papers."""

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
    """A table of every variant with its counted size and the figures of its paper."""
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
    """One line for each network with its name and its paper."""
    return [f"{spec.name}: {spec.source}" for spec in map(models.get, models.NAMES)]


@dataclass(frozen=True)
class Comparison:
    """A published figure and the figure of this implementation, counted as `figure` says.

    The latter is counted at its first use, so that listing the figures builds no network. `unit` is
    M (millions of parameters) or GMACs.
    """

    name: str
    variant: str
    unit: str
    published: float
    figure: Published

    @cached_property
    def counted(self) -> float:
        """The figure of this implementation in `unit`."""
        net = _build(self.name, self.variant)
        if self.unit == "M":
            return count_parameters(net, self.figure.without) / 1e6
        macs = count_macs(net, *self.figure.size, self.figure.without)
        if self.figure.convolutions:
            return macs.convolutions / 1e9
        return (macs.with_bias if self.figure.with_bias else macs.pure) / 1e9

    @property
    def difference(self) -> float:
        """The difference relative to the published figure."""
        return self.counted / self.published - 1

    @property
    def within_tolerance(self) -> bool:
        return abs(self.difference) <= self.figure.tolerance


def comparisons() -> Iterator[Comparison]:
    """Compare every figure of every paper."""
    for name in models.NAMES:
        for variant, figures in models.get(name).published.items():
            for figure in figures:
                if figure.parameters is not None:
                    yield Comparison(name, variant, "M", figure.parameters / 1e6, figure)
                if figure.gmacs is not None:
                    yield Comparison(name, variant, "GMACs", figure.gmacs, figure)


@cache
def _build(name: str, variant: str) -> nn.Module:
    """Build a network in eval mode on the meta device, where tensors have no values."""
    spec = models.get(name)
    with torch.device("meta"):
        return spec.build(**spec.variants[variant]).eval()
