"""Compile the TensorRT plugins (csrc/tensorrt/) with the machine's C++ compiler.

They need headers that come with TensorRT 10.3 or newer and those of CUDA, and call the CUDA kernels
(cuda.py); the library is not linked to TensorRT.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from deblur_export.plugins.compile.cpu import FLAGS, BuildError, compile_all, compiler, link
from deblur_export.temporary import temporary_folder

LIBRARY = "libdeblur_plugins.so"
LEAST_RELEASE = (10, 3)
TENSORRT_VARIABLES = ("TENSORRT_ROOT", "TensorRT_INCLUDE_DIR")
CUDA_VARIABLES = ("CUDA_HOME", "CUDA_PATH")
SYSTEM = (f"/usr/include/{platform.machine()}-linux-gnu", "/usr/include", "/usr/local/tensorrt")
# The library's own calls stay inside it, whatever else of ours a process has loaded.
LINK = ("-Wl,-Bsymbolic", "-Wl,--no-undefined", "-Wl,-rpath,$ORIGIN", "-ldl")


def tensorrt_headers() -> Path:
    """The folder of NvInferRuntime.h.

    Raises:
        BuildError: there is none, or of too old a release.
    """
    folder = _folder_with("NvInferRuntime.h", TENSORRT_VARIABLES, SYSTEM)
    if folder is None:
        raise BuildError(
            "no headers of TensorRT; set TENSORRT_ROOT to the folder of its include/, which is "
            "also in the repository github.com/NVIDIA/TensorRT"
        )
    if (found := release(folder)) < LEAST_RELEASE:
        raise BuildError(f"{folder} is of TensorRT {'.'.join(map(str, found))}; 10.3 is the least")
    return folder


def cuda_headers() -> Path:
    """The folder of cuda_runtime_api.h.

    Raises:
        BuildError: there is none.
    """
    nvcc = shutil.which("nvcc")
    beside = [str(Path(nvcc).resolve().parents[1])] if nvcc else []
    folder = _folder_with("cuda_runtime_api.h", CUDA_VARIABLES, (*beside, "/usr/local/cuda"))
    if folder is None:
        raise BuildError("no headers of CUDA; install the CUDA toolkit or set CUDA_HOME")
    return folder


def _folder_with(header: str, variables: Sequence[str], places: Sequence[str]) -> Path | None:
    """The first of what the variables say and `places`, or its include/, that has the header; a
    variable that is set is the last word."""
    named = [Path(value) for name in variables if (value := os.environ.get(name))]
    for place in named or map(Path, places):
        for folder in (place, place / "include"):
            if (folder / header).is_file():
                return folder
    return None


def release(headers: Path) -> tuple[int, int]:
    """Major and minor of TensorRT.

    Raises:
        BuildError: NvInferVersion.h does not say it.
    """
    text = (headers / "NvInferVersion.h").read_text(encoding="utf-8")
    numbers = [
        re.search(rf"#define (?:NV_TENSORRT_{part}|TRT_{part}_ENTERPRISE) (\d+)", text)
        for part in ("MAJOR", "MINOR")
    ]
    if not all(numbers):
        raise BuildError(f"{headers / 'NvInferVersion.h'} does not say of which release it is")
    major, minor = (int(number[1]) for number in numbers if number)
    return major, minor


def build(sources: Path, target: Path, kernels: Path) -> None:
    """Compile csrc/ at `sources` into the library `target`, replacing it at once at the end.

    Args:
        kernels: libdeblur_kernels.so, which is loaded from the folder of `target`.

    Raises:
        BuildError: no compiler, headers or kernels, a compiler error, or the place cannot be
            written.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError("the plugins are built on Linux only")
    headers = ("-isystem", str(tensorrt_headers()), "-isystem", str(cuda_headers()))
    if not kernels.is_file():
        raise BuildError(f"no {kernels}, which is built first")
    command = [*compiler(), *FLAGS, *headers]
    files = sorted(sources.glob("tensorrt/*.cpp"))
    if not files:
        raise BuildError(f"no sources in {sources}")
    try:
        with temporary_folder(target.parent) as folder:
            objects = compile_all(command, [(file, ()) for file in files], folder)
            linked = (f"-L{kernels.parent}", f"-l:{kernels.name}", *LINK)
            link(command, [*objects, *linked], target, folder)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror}") from error
