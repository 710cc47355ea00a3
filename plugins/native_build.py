"""Compile the native CPU kernels with the machine's C++ compiler; nothing but Python is needed.

setup.py runs this file before anything is installed, so it imports only the standard library.
csrc/CMakeLists.txt builds the same library for C++ projects.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUFFIX = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
LIBRARY = f"libdeblur_cpu.{SUFFIX}"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")

# As in CMakeLists.txt: */kernel*.cpp is compiled for each of these, everything else once.
TARGETS: dict[str, tuple[str, ...]] = {"scalar": ()}
if platform.machine().lower() in ("x86_64", "amd64"):
    AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl")
    TARGETS |= {"avx2": ("-mavx2", "-mfma"), "avx512": (*AVX512, "-mavx2", "-mfma")}


class BuildError(Exception):
    """No compiler, or it failed; the message is one line."""


def compiler() -> list[str]:
    """The C++ compiler: $CXX, or the first of the usual names.

    Raises:
        BuildError: there is none.
    """
    wish = shlex.split(os.environ.get("CXX", ""))
    for command in [wish] if wish else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise BuildError(f"no C++ compiler ({' '.join(wish) or ', '.join(COMPILERS)} not found)")


def build(sources: Path, target: Path) -> None:
    """Compile csrc/ at `sources` into the library `target`, replacing it at once at the end.

    Raises:
        BuildError: no compiler, sources missing, a compiler error, or the place cannot be written.
    """
    command = [*compiler(), *FLAGS]
    kernels = sorted(sources.glob("*/kernel*.cpp"))
    once = sorted({*sources.glob("*/*.cpp")} - {*kernels, *sources.glob("tests/*")})
    if not kernels:
        raise BuildError(f"no sources in {sources}")
    if len(TARGETS) > 1:
        command.append("-DDEBLUR_X86")
    jobs: list[tuple[Path, tuple[str, ...]]] = [
        (source, (f"-DDEBLUR_TARGET={t}", *f)) for source in kernels for t, f in TARGETS.items()
    ]
    jobs += [(source, ()) for source in once]
    try:
        with tempfile.TemporaryDirectory(prefix=".native-", dir=target.parent) as folder:
            objects = [str(Path(folder) / f"{number}.o") for number in range(len(jobs))]
            compile_ = [
                [*command, *flags, "-c", str(source), "-o", output]
                for (source, flags), output in zip(jobs, objects, strict=True)
            ]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(_run, compile_))
            library = Path(folder) / target.name
            _run([*command, "-shared", *objects, "-o", str(library), "-pthread"])
            library.replace(target)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror}") from error


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error" in line.lower()]
        reason = (errors or result.stderr.splitlines() or ["it failed"])[0]
        raise BuildError(f"{command[0]}: {reason.strip()}")
