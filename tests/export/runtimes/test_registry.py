"""One entry of the registry makes a backend known to every verb."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from deblur_export.errors import DeblurExportError
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.runtimes.registry import DEFAULT, ENTRIES, backend, backends
from deblur_export.precision import GRAPH_PRECISIONS, PRECISIONS
from deblur_export.target import TARGETS
from tests.conftest import Exported

# What a package with another backend would do: name it before the verbs are made.
REGISTERED = """
import sys
from deblur_export.export.runtimes.registry import ENTRIES, Entry
ENTRIES["toy"] = Entry("tests.export.runtimes.toy_backend", "TOY", bench_prefix="toy")
from deblur_export.cli import main
main()
"""
ROOT = Path(__file__).parents[3]


def with_toy(folder: Path, *arguments: object) -> str:
    """What a verb prints; the toy is registered."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{REGISTERED}"]
        + [str(argument) for argument in arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_registered_backend_serves_every_verb(exported: Exported, tmp_path: Path) -> None:
    # Without custom ops, and small: the toy computes in Python.
    file = exported("nafnet", options=ExportOptions(shape=(1, 3, 16, 16))).path
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    for runtime in ("toy", DEFAULT):
        out = with_toy(
            tmp_path, "run", file, "photo.png", "--runtime", runtime, "-o", tmp_path / runtime
        )
        assert ("note: a toy ran it" in out) == (runtime == "toy")
    toy, ours = (cv2.imread(str(tmp_path / name / "photo.png")) for name in ("toy", DEFAULT))
    assert np.abs(toy.astype(int) - ours).max() <= 1
    assert np.abs(toy.astype(int) - photo).max() > 1
    judged = with_toy(tmp_path, "verify", file, "--runtime", "toy")
    assert "Toy 1.0" in judged
    assert "PASS" in judged
    doctor = with_toy(tmp_path, "doctor")
    assert [line for line in doctor.splitlines() if "deblur-export run" in line and "Toy" in line]
    help_text = with_toy(tmp_path, "bench", "--help")
    assert "toy-plain,toy-optimized" in "".join(help_text.split())  # a line may end at a hyphen


def test_every_entry_is_a_backend() -> None:
    for name, found in backends():
        assert found.title
        assert found.package
        assert set(found.precisions) <= set(GRAPH_PRECISIONS), name
        assert set(found.computes) <= set(PRECISIONS), name
        assert set(found.bench_targets) <= set(TARGETS), name
        assert bool(found.bench_targets) == bool(ENTRIES[name].bench_names), name
    assert [name for name, found in backends() if found.runs_engines] == ["tensorrt"]
    assert not backend(DEFAULT).runs_engines


def test_a_name_that_is_no_backend() -> None:
    with pytest.raises(DeblurExportError, match="no runtime 'tvm'; there are onnxruntime, "):
        backend("tvm")


def test_the_registry_loads_no_backend() -> None:
    code = (
        "import sys, deblur_export.export.runtimes.registry\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'openvino', 'polygraphy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# "tensorrt" is also the name of a builder of engines and of a layout of int8.
@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "tensorrt"])
def test_only_its_own_file_and_the_registry_know_a_backend(name: str) -> None:
    """A new backend is its file, its entry, its extra in pyproject.toml and its documentation."""
    folders = ("models", "export", "calibration", "src/deblur_export/commands")
    speaking = {
        file.relative_to(ROOT).as_posix()
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        if f'"{name}"' in file.read_text(encoding="utf-8")
    }
    own = ENTRIES[name].module.rpartition(".")[2]
    assert speaking <= {"export/runtimes/registry.py", f"export/runtimes/{own}.py"}
