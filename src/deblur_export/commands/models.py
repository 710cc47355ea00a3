"""`deblur-export models`."""

from __future__ import annotations

import click

from deblur_export.commands.common import make_console, steps


@click.command()
def models() -> None:
    """Networks, variants, sizes and where they come from."""
    console = make_console()
    with steps(console, "counting"):
        from deblur_export.models.catalogue import models_table, sources

        table = models_table()
    console.print(table)
    console.print(
        "GMACs: multiply-adds of convolutions and matrix products for one 256x256 image; m2aenet "
        "with every pixel computed."
    )
    for line in sources():
        console.print(line)
