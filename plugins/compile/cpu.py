"""Compile the native CPU kernels with the machine's C++ compiler; nothing but Python is needed.

Where OpenVINO is installed, they become a second library, its extension. setup.py runs this file
before anything is installed, so it imports only the standard library. csrc/CMakeLists.txt builds
the first library for C++ projects.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

SUFFIX = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
LIBRARY = f"libdeblur_cpu.{SUFFIX}"
EXTENSION = f"libdeblur_openvino.{SUFFIX}"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")

# Its symbols are not mixed up with those of the other library; all that it calls must be there.
LINK_EXTENSION = ("-Wl,-Bsymbolic", "-Wl,--no-undefined")

# A function of OpenVINO that takes a std::string, where that is the one from before C++11, as in
# the wheels of 2025.
TAKES_OLD_STRING = b"_ZN2ov9Exception6createEPKciRKSs"
OLD_STRING = "-D_GLIBCXX_USE_CXX11_ABI=0"

# As in CMakeLists.txt: */kernel*.cpp is compiled for each of these, everything else once.
TARGETS: dict[str, tuple[str, ...]] = {"scalar": ()}
if platform.machine().lower() in ("x86_64", "amd64"):
    AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl")
    TARGETS |= {"avx2": ("-mavx2", "-mfma"), "avx512": (*AVX512, "-mavx2", "-mfma")}

Job = tuple[Path, tuple[str, ...]]  # a source and its flags


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


def openvino_package() -> Path:
    """Where OpenVINO is installed; its wheel brings headers and libraries along.

    Raises:
        BuildError: it is not, or without them.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError("the extension is built on Linux only")
    # pip builds in a process that does not import what is installed.
    folders = [*sys.path, *(sysconfig.get_path(name) for name in ("platlib", "purelib"))]
    for folder in folders:
        package = Path(folder or ".") / "openvino"
        if (package / "__init__.py").exists():
            if (package / "include/openvino").is_dir() and any(
                package.glob("libs/libopenvino.so*")
            ):
                return package.absolute()
            raise BuildError(f"{package} has no headers or libraries")
    raise BuildError("OpenVINO is not installed")


def _work_folder(parent: Path) -> AbstractContextManager[str]:
    return tempfile.TemporaryDirectory(prefix=".native-", dir=parent)


def build(
    sources: Path,
    target: Path,
    extension: Path | None = None,
    work_folder: Callable[[Path], AbstractContextManager[str | Path]] = _work_folder,
) -> str | None:
    """Compile csrc/ at `sources` into the library `target`, replacing it at once at the end.

    Args:
        sources: csrc/.
        target: the library.
        extension: the OpenVINO extension, made of the same kernels.
        work_folder: makes a folder for object files in the folder of `target`, and removes it.

    Returns:
        Why the OpenVINO extension was not made of the same kernels; None if it was, or if no
        place for it is given.

    Raises:
        BuildError: no compiler, sources missing, a compiler error, or the place cannot be written.
    """
    command = [*compiler(), *FLAGS]
    kernels = sorted(sources.glob("*/kernel*.cpp"))
    elsewhere = ("openvino", "tensorrt")
    others = {*kernels, *(file for name in elsewhere for file in sources.glob(f"{name}/*"))}
    once = sorted({*sources.glob("*/*.cpp")} - others)
    if not kernels:
        raise BuildError(f"no sources in {sources}")
    if len(TARGETS) > 1:
        command.append("-DDEBLUR_X86")
    jobs: list[Job] = [
        (source, (f"-DDEBLUR_TARGET={t}", *f)) for source in kernels for t, f in TARGETS.items()
    ]
    jobs += [(source, ()) for source in once]
    try:
        with work_folder(target.parent) as folder:
            objects = compile_all(command, jobs, Path(folder))
            link(command, [*objects, "-pthread"], target, Path(folder))
            if extension is None:
                return None
            try:
                package = openvino_package()
                runtime = list(package.glob("libs/libopenvino.so*"))
                old = TAKES_OLD_STRING in runtime[0].read_bytes()
                flags = ("-isystem", str(package / "include"), *[OLD_STRING] * old)
                nodes: list[Job] = [(source, flags) for source in sources.glob("openvino/*.cpp")]
                objects += compile_all(command, nodes, Path(folder))
                libraries = [*runtime, *package.glob("libs/libtbb.so*")]
                objects += [*map(str, libraries), *LINK_EXTENSION]
                link(command, objects, extension, Path(folder))
            except BuildError as error:
                return str(error)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror}") from error
    return None


def compile_all(command: list[str], jobs: list[Job], folder: Path) -> list[str]:
    """One object in `folder` for each source and its flags."""
    objects = [str(folder / f"{source.parent.name}-{i}.o") for i, (source, _) in enumerate(jobs)]
    commands = [
        [*command, *flags, "-c", str(source), "-o", output]
        for (source, flags), output in zip(jobs, objects, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, commands))
    return objects


def link(command: list[str], objects: list[str], target: Path, folder: Path) -> None:
    """Make `target` of the objects in `folder`, replacing it at once."""
    library = folder / target.name
    run([*command, "-shared", *objects, "-o", str(library)])
    library.replace(target)


def run(command: list[str]) -> None:
    """Run a compiler.

    Raises:
        BuildError: it failed; its first error.
    """
    result = subprocess.run(
        command,
        capture_output=True,
        encoding="locale",
        errors="backslashreplace",
        check=False,
    )
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error" in line.lower()]
        reason = (errors or result.stderr.splitlines() or ["it failed"])[0]
        raise BuildError(f"{command[0]}: {reason.strip()}")
