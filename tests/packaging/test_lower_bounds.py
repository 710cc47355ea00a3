"""The lower bounds of pyproject.toml: a network is exported, verified and converted with them."""

from __future__ import annotations

from pathlib import Path

import pytest

import deblur_export
from tests.packaging.conftest import ROOT
from tests.venvs import environment, run

SHAPE = ("--shape", "1x3x33x47")  # three times as quick as a free one
M2AENET = ("--model", "m2aenet", "--variant", "tiny", "--weights", "random:0", *SHAPE)
NAFNET = ("--model", "nafnet", "--variant", "tiny", "--weights", "random:0", *SHAPE)


def lower_bounds() -> list[str]:
    """The dependencies and those of the extra openvino, each pinned to its lower bound."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11, which reads TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["openvino"]]
    return [requirement.replace(">=", "==") for requirement in wanted]


def test_every_dependency_has_one() -> None:
    assert all(requirement.count("==") == 1 for requirement in lower_bounds())


@pytest.mark.matrix
def test_export_verify_and_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment(tmp_path / "venv", *lower_bounds())
    monkeypatch.setenv("PYTHONPATH", str(Path(deblur_export.__file__).parents[1]))
    tool = ("-m", "deblur_export")
    run(python, *tool, "onnx", *M2AENET, "-o", "net.onnx", folder=tmp_path)
    assert "PASS" in run(python, *tool, "verify", "net.onnx", folder=tmp_path)
    monkeypatch.setenv("DEBLUR_OPENVINO_LIBRARY", "none")  # that of another release
    openvino = ("verify", "net.onnx", "--runtime", "openvino")
    assert "PASS" in run(python, *tool, *openvino, folder=tmp_path)
    half = ("--target", "ort", "--precision", "fp16", "-o", "half.onnx")
    run(python, *tool, "onnx", *NAFNET, *half, folder=tmp_path)
    assert "PASS" in run(python, *tool, "verify", "half.onnx", folder=tmp_path)
