"""Adopted files in the benchmark: their original is the reference, and no PyTorch network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deblur_export
from deblur_export.errors import DeblurExportError
from deblur_export.export.timing import subjects
from deblur_export.export.timing.candidates import CANDIDATES, plan
from deblur_export.export.timing.jobs import Job, Original
from deblur_export.export.timing.runners import open_runner
from tests.export.adopt import files


def test_rows_of_adopted_files(tmp_path: Path) -> None:
    """Files of one original are one network; PyTorch and plain exports of it are left out."""
    source = files.grey(tmp_path / "theirs.onnx")
    made = [
        deblur_export.adopt(source, tmp_path / "a.onnx").path,
        deblur_export.adopt(source, tmp_path / "b.onnx", precision="fp16").path,
    ]
    (subject,), sizes = subjects.from_files(made, None)
    assert isinstance(subject.network, Original) and subject.files == tuple(made)
    assert (subject.title, subject.channels, sizes) == ("theirs.onnx", 1, [])
    names = [row.kind.name for row in plan([subject], CANDIDATES.values(), ("fp32",))]
    assert names[:3] == ["ort-plain", "ort-optimized", "ort-optimized"]
    assert not any(name.startswith("torch") or name == "openvino-plain" for name in names)
    with pytest.raises(DeblurExportError, match="no network or weights besides"):
        subjects.from_files(made, "net.pth")


def test_the_original_is_run(tmp_path: Path) -> None:
    source = files.strided(tmp_path / "theirs.onnx")
    artifact = deblur_export.adopt(source, tmp_path / "a.onnx", colour="BGR")
    runner = open_runner(Job("onnxruntime", "fp32", 1, adopted=str(artifact.path)))
    image = np.random.default_rng(0).random((1, 3, 13, 21), np.float32)
    file = open_runner(Job("onnxruntime", "fp32", 1, file=str(artifact.path)))
    assert "theirs.onnx" in runner.title
    assert np.abs(runner.run({"image": image}) - file.run({"image": image})).max() < 1e-6
