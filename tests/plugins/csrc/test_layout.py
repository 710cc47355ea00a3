"""The folders of csrc/: one for each op, and production code that needs nothing from tests/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deblur_export import plugins

PLUGINS = Path(plugins.__file__).resolve().parent
CSRC = PLUGINS / "csrc"
# common: what several ops share. emulation: the device in C++, for builds without nvcc. The others
# wrap the kernels for a runtime.
NOT_OPS = {"common", "emulation", "openvino", "tensorrt"}
FOLDERS = sorted(path for path in CSRC.iterdir() if path.is_dir())
OP_FOLDERS = [folder for folder in FOLDERS if folder.name not in NOT_OPS]
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"})


def includes(source: Path) -> list[str]:
    """The files that `source` includes in quotes."""
    return re.findall(
        r'^\s*#\s*include\s+"([^"]+)"', source.read_text(encoding="utf-8"), re.MULTILINE
    )


def test_there_are_sources() -> None:
    assert len(SOURCES) > 50
    assert len(OP_FOLDERS) >= 9
    assert {folder.name for folder in FOLDERS} > NOT_OPS


@pytest.mark.parametrize("folder", OP_FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_of_csrc_is_an_op(folder: Path) -> None:
    assert (PLUGINS / "ops" / f"{folder.name}.py").is_file()


@pytest.mark.parametrize("folder", OP_FOLDERS, ids=lambda folder: folder.name)
def test_every_op_has_the_same_file_names(folder: Path) -> None:
    """api.cpp and api.cu hold the C functions; arguments.h, kernel*.cpp and kernel*.cuh the rest.

    Any other header belongs to a kernel of its own folder.
    """
    files = {path.name for path in folder.iterdir()}
    assert files >= {"api.cpp", "api.cu", "kernel.cuh"}
    assert ("arguments.h" in files) == any(re.fullmatch(r"kernel.*\.cpp", f) for f in files)
    compiled = {f for f in files if f.endswith((".cpp", ".cu"))}
    assert all(re.fullmatch(r"api\.cpp|api\.cu|kernel(_\w+)?\.cpp", f) for f in compiled)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes_stay_inside_csrc(source: Path) -> None:
    """Of csrc itself, of no tests folder, and of the op's own folder or what several ops share."""
    for name in includes(source):
        included = (source.parent / name).resolve()
        assert included.is_file(), name
        folder = included.relative_to(CSRC).parts[0]  # raises outside csrc
        assert "test" not in str(included.relative_to(CSRC))
        own = source.relative_to(CSRC).parts[0]
        assert folder in {own, "common", "emulation", "deblur_cpu.h", "deblur_cuda.h"}, name


def test_the_emulation_is_included_under_its_macro_only() -> None:
    users = {
        str(source.relative_to(CSRC)): re.findall(
            r'^#if defined\(DEBLUR_EMULATION\)\n#include "\.\./emulation/\w+\.h"\n#el',
            source.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        for source in SOURCES
        if any("emulation/" in name for name in includes(source))
    }
    assert set(users) == {"common/launch.cuh", "common/gemm.cuh"}
    assert all(len(guarded) == 1 for guarded in users.values())
