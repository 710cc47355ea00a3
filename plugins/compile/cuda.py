"""Compile the CUDA kernels with nvcc into libdeblur_kernels.so; no GPU and no other tool is needed.

csrc/CMakeLists.txt builds the same library for C++ projects (-DDEBLUR_CUDA=ON).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deblur_export.plugins.compile.cpu import SUFFIX, BuildError, run

LIBRARY = f"libdeblur_kernels.{SUFFIX}"
# Machine code for these (compute capability times ten), PTX of the last for what comes after them.
ARCHITECTURES = (80, 86, 89, 90, 120)
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
        BuildError: it has none of them.
    """
    listing = subprocess.run(
        [*command, "--list-gpu-code"], capture_output=True, encoding="locale", check=False
    )
    names = listing.stdout.split()
    known = tuple(a for a in ARCHITECTURES if f"sm_{a}" in names)
    if not known:
        raise BuildError(f"{command[0]} knows none of the architectures {ARCHITECTURES}")
    return known


def build(sources: Path, target: Path, architectures: Sequence[int] = ()) -> None:
    """Compile csrc/ at `sources` into the library `target`, replacing it at once at the end.

    Args:
        architectures: compute capabilities times ten; none for all that nvcc and we know.

    Raises:
        BuildError: no nvcc, sources missing, a compiler error, or the place cannot be written.
    """
    command = nvcc()
    chosen = sorted(architectures) or known_architectures(command)
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in chosen]
    codes.append(f"-gencode=arch=compute_{chosen[-1]},code=compute_{chosen[-1]}")
    kernels = sorted(sources.glob("*/*.cu"))
    if not kernels:
        raise BuildError(f"no CUDA sources in {sources}")
    try:
        with tempfile.TemporaryDirectory(prefix=".cuda-", dir=target.parent) as folder:
            objects = [str(Path(folder) / f"{k.parent.name}-{k.stem}.o") for k in kernels]
            commands = [
                [*command, *FLAGS, *codes, "-c", str(kernel), "-o", output]
                for kernel, output in zip(kernels, objects, strict=True)
            ]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(run, commands))
            library = Path(folder) / target.name
            run([*command, "-shared", *objects, "-o", str(library)])
            library.replace(target)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror}") from error
