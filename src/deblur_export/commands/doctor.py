"""`deblur-export doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from deblur_export.commands.common import PATH, make_console, steps


@click.command()
@click.argument("file", type=PATH, required=False)
def doctor(file: Path | None) -> None:
    """What is installed, what works on this machine, and what to install for the rest.

    With FILE, an ONNX file or an engine: which of the installed clients load it, and why not.
    """
    console = make_console()
    with steps(console, "looking"):
        from deblur_export.commands.findings import doctor_table
        from deblur_export.commands.loading import check_file, loading_table

        if file is not None:
            check_file(file)
        table = doctor_table() if file is None else loading_table(file)
    console.print(table)
