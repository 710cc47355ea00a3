"""`deblur-export plugins build`."""

from __future__ import annotations

from pathlib import Path

import click

from deblur_export.commands.common import make_console, steps
from deblur_export.errors import DeblurExportError
from deblur_export.temporary import temporary_folder


@click.group()
def plugins() -> None:
    """Native kernels of the custom ops."""


@plugins.command("build")
@click.option("--cuda", "only_cuda", is_flag=True, help="Build the CUDA kernels only.")
def build_plugins(only_cuda: bool) -> None:
    """Compile the native kernels into the installed package.

    The CPU kernels need a C++ compiler. The OpenVINO extension is built if OpenVINO is installed,
    the CUDA kernels if nvcc is (a GPU is not needed), the TensorRT plugins if TensorRT's headers
    are as well (TENSORRT_ROOT).
    """
    from deblur_export.plugins.compile import cuda as cuda_compiler
    from deblur_export.plugins.compile import tensorrt as tensorrt_compiler
    from deblur_export.plugins.compile.cpu import EXTENSION, LIBRARY, BuildError, build

    console = make_console()
    package = (Path(__file__).parents[1] / "plugins").resolve()
    sources, folder = package / "csrc", package / "libraries"
    made, skipped = [], []
    with steps(console, "compiling"):
        if not only_cuda:
            try:
                reason = build(sources, folder / LIBRARY, folder / EXTENSION, temporary_folder)
            except BuildError as error:
                raise DeblurExportError(f"native kernels not built: {error}") from error
            made.append(LIBRARY)
            if reason is None:
                made.append(EXTENSION)
            else:
                skipped.append(f"native ops for OpenVINO not built: {reason}")
    with steps(console, "compiling the CUDA kernels, a minute or two"):
        try:
            cuda_compiler.build(sources, folder / cuda_compiler.LIBRARY)
            made.append(cuda_compiler.LIBRARY)
        except BuildError as error:
            if only_cuda:
                raise DeblurExportError(f"CUDA kernels not built: {error}") from error
            skipped.append(f"CUDA kernels not built: {error}")
    if cuda_compiler.LIBRARY in made and not only_cuda:
        with steps(console, "compiling the TensorRT plugins"):
            try:
                tensorrt_compiler.build(
                    sources,
                    folder / tensorrt_compiler.LIBRARY,
                    folder / cuda_compiler.LIBRARY,
                )
                made.append(tensorrt_compiler.LIBRARY)
            except BuildError as error:
                skipped.append(f"TensorRT plugins not built: {error}")
    for name in made:
        console.print(f"built {folder / name}")
    for line in skipped:
        console.print(line)
    console.print("next: deblur-export doctor tests them")
