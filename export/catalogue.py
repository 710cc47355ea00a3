"""The table of networks."""

from __future__ import annotations

from rich.table import Table

from deblur_export import models
from deblur_export.models.complexity import count_macs, count_parameters


def models_table() -> Table:
    """Every variant with its measured size and its source."""
    table = Table("model", "variant", "parameters", "GMACs @256", "published", "source")
    for name in models.NAMES:
        spec = models.get(name)
        for variant, arguments in spec.variants.items():
            net = spec.build(**arguments).eval()
            published = spec.published.get(variant)
            table.add_row(
                spec.name,
                variant,
                f"{count_parameters(net):,}",
                f"{count_macs(net, 256, 256).pure / 1e9:.2f}",
                f"{published.parameters:,} parameters" if published else "-",
                spec.source if variant == spec.default_variant else "",
            )
    return table
