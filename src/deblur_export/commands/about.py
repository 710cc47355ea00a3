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
@click.option("--cuda", "only_cuda", is_flag=True, help="The CUDA kernels alone; they must build.")
def build_plugins(only_cuda: bool) -> None:
    """Compile the native kernels into the installed package.

    Those for the processor need a C++ compiler. The OpenVINO extension is made where OpenVINO is
    installed, the CUDA kernels where there is nvcc (a GPU is not needed), the TensorRT plugins
    where TensorRT's headers are, too (TENSORRT_ROOT).
    """
    from deblur_export.plugins import cuda_build, tensorrt_build
    from deblur_export.plugins.native_build import EXTENSION, LIBRARY, BuildError, build

    console = make_console()
    folder = (Path(__file__).parents[1] / "plugins").resolve()
    made, skipped = [], []
    with console.status("compiling"):
        if not only_cuda:
            try:
                reason = build(folder / "csrc", folder / LIBRARY, folder / EXTENSION)
            except BuildError as error:
                raise DeblurExportError(f"native kernels not built: {error}") from error
            made.append(LIBRARY)
            if reason is None:
                made.append(EXTENSION)
            else:
                skipped.append(f"native ops for OpenVINO not built: {reason}")
    with console.status("compiling the CUDA kernels, a minute or two"):
        try:
            cuda_build.build(folder / "csrc", folder / cuda_build.LIBRARY)
            made.append(cuda_build.LIBRARY)
        except BuildError as error:
            if only_cuda:
                raise DeblurExportError(f"CUDA kernels not built: {error}") from error
            skipped.append(f"CUDA kernels not built: {error}")
    if cuda_build.LIBRARY in made and not only_cuda:
        with console.status("compiling the TensorRT plugins"):
            try:
                tensorrt_build.build(
                    folder / "csrc", folder / tensorrt_build.LIBRARY, folder / cuda_build.LIBRARY
                )
                made.append(tensorrt_build.LIBRARY)
            except BuildError as error:
                skipped.append(f"TensorRT plugins not built: {error}")
    for name in made:
        console.print(f"built {folder / name}")
    for line in skipped:
        console.print(line)
    console.print("deblur-export doctor tries them")
