"""Build the CUDA kernels for the GPU of this machine, and the TensorRT plugins where there are
headers; in a dry run for compute capability 9.0, into a temporary folder."""

from __future__ import annotations

import sys
from pathlib import Path

from deblur_export.plugins import libraries
from deblur_export.plugins.compile import cuda as cuda_compiler
from deblur_export.plugins.compile import tensorrt as tensorrt_compiler
from deblur_export.plugins.compile.cpu import BuildError
from deblur_export.temporary import temporary_folder

HOPPER = 90


def build(folder: Path, architecture: int) -> bool:
    """Into `folder`; returns whether there are kernels."""
    sources = Path(libraries.__file__).resolve().parents[1] / "csrc"
    kernels = folder / cuda_compiler.LIBRARY
    try:
        cuda_compiler.build(sources, kernels, [architecture])
    except BuildError as error:
        print(f"CUDA kernels not built: {error}")
        return False
    print(f"built {kernels} for {architecture / 10}")
    try:
        plugins = folder / tensorrt_compiler.LIBRARY
        tensorrt_compiler.build(sources, plugins, kernels)
        print(f"built {plugins}")
    except BuildError as error:
        print(f"TensorRT plugins not built: {error}")
    return True


def main() -> None:
    if "--dry-run" in sys.argv:
        try:
            cuda_compiler.nvcc()
        except BuildError as error:
            print(f"nothing compiled: {error}")
            return
        with temporary_folder() as folder:
            sys.exit(not build(folder, HOPPER))
    import torch

    major, minor = torch.cuda.get_device_capability()
    folder = Path(libraries.__file__).resolve().parent
    sys.exit(not build(folder, 10 * major + minor))
