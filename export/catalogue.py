"""The table of networks."""

from __future__ import annotations

from rich.table import Table

from deblur_export import models
from deblur_export.models.complexity import count_macs, count_parameters


def models_table() -> Table:
    """Every variant with its measured size beside the paper's figures."""
    table = Table("model", "variant", "parameters", "GMACs", "published")
    for name in models.NAMES:
        spec = models.get(name)
        for variant, arguments in spec.variants.items():
            net = spec.build(**arguments).eval()
            table.add_row(
                spec.name,
                variant,
                f"{count_parameters(net):,}",
                f"{count_macs(net, 256, 256).pure / 1e9:.2f}",
                spec.published.get(variant, ""),
            )
    return table


def sources() -> list[str]:
    """One line a network: its name and where it comes from."""
    return [f"{spec.name}: {spec.source}" for spec in map(models.get, models.NAMES)]
