"""`deblur-export doctor`."""

from __future__ import annotations

import click

from deblur_export.commands.common import make_console, steps


@click.command()
def doctor() -> None:
    """What is installed, what works on this machine, and what to install for the rest."""
    console = make_console()
    with steps(console, "looking"):
        from deblur_export.commands.findings import doctor_table

        table = doctor_table()
    console.print(table)
