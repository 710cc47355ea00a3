"""`deblur-export models`, `doctor` and `plugins build`."""

from __future__ import annotations

from pathlib import Path

import click

from deblur_export.commands.common import make_console
from deblur_export.errors import DeblurExportError


@click.command()
def models() -> None:
    """Networks, variants, sizes and where they come from."""
    console = make_console()
    with console.status("counting"):
        from deblur_export.export.catalogue import models_table, sources

        table = models_table()
    console.print(table)
    console.print(
        "GMACs: multiply-adds of convolutions and matrix products for one 256x256 image; m2aenet "
        "with every pixel computed."
    )
    for line in sources():
        console.print(line)


@click.command()
def doctor() -> None:
    """What is installed, what works on this machine, and what to install for the rest."""
    console = make_console()
    with console.status("looking"):
        from deblur_export.export.doctor import doctor_table

        table = doctor_table()
    console.print(table)


@click.group()
def plugins() -> None:
    """Native kernels of the custom ops."""


@plugins.command("build")
def build_plugins() -> None:
    """Compile the native kernels into the installed package (needs a C++ compiler)."""
    from deblur_export.plugins.native_build import EXTENSION, LIBRARY, BuildError, build

    console = make_console()
    folder = (Path(__file__).parents[1] / "plugins").resolve()
    with console.status("compiling"):
        try:
            reason = build(folder / "csrc", folder / LIBRARY, folder / EXTENSION)
        except BuildError as error:
            raise DeblurExportError(f"native kernels not built: {error}") from error
    console.print(f"built {folder / LIBRARY}")
    if reason is None:
        console.print(f"built {folder / EXTENSION}")
    else:
        console.print(f"native ops for OpenVINO not built: {reason}")
    console.print("deblur-export doctor tries them")
