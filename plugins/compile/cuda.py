"""Compile the CUDA kernels with nvcc into libdeblur_kernels.so; no GPU and no other tool is needed.

csrc/CMakeLists.txt builds the same library for C++ projects (-DDEBLUR_CUDA=ON).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deblur_export.plugins.compile.cpu import SUFFIX, BuildError, run
from deblur_export.temporary import temporary_folder

LIBRARY = f"libdeblur_kernels.{SUFFIX}"
# Compute capabilities times ten. Tensor cores of older ones have no bfloat16, and the sources do
# not compile for them. PTX of the oldest runs, compiled by the driver, on every newer GPU. Machine
# code is for these, and runs on later minor versions too: that of 12.0 on 12.1.
OLDEST = 80
ARCHITECTURES = (OLDEST, 86, 89, 90, 100, 103, 110, 120)
FLAGS = ("-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden")
USUAL_PLACE = "/usr/local/cuda/bin/nvcc"


def nvcc() -> list[str]:
    """The CUDA compiler: $NVCC, or the one on the path or in CUDA's usual place.

    Raises:
        BuildError: there is none.
    """
    wish = shlex.split(os.environ.get("NVCC", ""))
    for command in [wish] if wish else [["nvcc"], [USUAL_PLACE]]:
        if shutil.which(command[0]):
            return command
    raise BuildError(f"no CUDA compiler ({' '.join(wish) or 'nvcc'} not found)")


def known_architectures(command: list[str]) -> tuple[int, ...]:
    """Those of `ARCHITECTURES` that this nvcc has: older ones lack the newest.

    Raises:
        BuildError: it does not have the oldest.
    """
    listing = subprocess.run(
        [*command, "--list-gpu-code"],
        capture_output=True,
        encoding="locale",
        errors="backslashreplace",
        check=False,
    )
    names = listing.stdout.split()
    known = tuple(a for a in ARCHITECTURES if f"sm_{a}" in names)
    if OLDEST not in known:
        raise BuildError(f"{command[0]} does not know compute capability {OLDEST / 10}")
    return known


def code_flags(architectures: Sequence[int]) -> list[str]:
    """nvcc's flags for machine code of these compute capabilities (times ten) and PTX of `OLDEST`.

    Raises:
        BuildError: one is older than the kernels support.
    """
    if min(architectures) < OLDEST:
        raise BuildError(
            f"no kernels for compute capability {min(architectures) / 10}, only for {OLDEST / 10} "
            "and newer"
        )
    machine = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in sorted(architectures)]
    return [*machine, f"-gencode=arch=compute_{OLDEST},code=compute_{OLDEST}"]


def build(sources: Path, target: Path, architectures: Sequence[int] = ()) -> None:
    """Compile csrc/ at `sources` into the library `target`, replacing it at once at the end.

    Args:
        architectures: compute capabilities times ten, of which there is machine code; none for all
            that nvcc and we know. PTX of the oldest is there in any case.

    Raises:
        BuildError: no nvcc, sources missing, a compiler error, the place cannot be written, or an
            architecture is too old.
    """
    command = nvcc()
    codes = code_flags(architectures or known_architectures(command))
    kernels = sorted(sources.glob("*/*.cu"))
    if not kernels:
        raise BuildError(f"no CUDA sources in {sources}")
    try:
        with temporary_folder(target.parent) as folder:
            objects = [str(folder / f"{k.parent.name}-{k.stem}.o") for k in kernels]
            commands = [
                [*command, *FLAGS, *codes, "-c", str(kernel), "-o", output]
                for kernel, output in zip(kernels, objects, strict=True)
            ]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(run, commands))
            library = folder / target.name
            run([*command, *codes, "-shared", *objects, "-o", str(library)])
            library.replace(target)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror}") from error
