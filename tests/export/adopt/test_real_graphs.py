"""Whole networks as another exporter would leave them: without our metadata."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import deblur_export
from tests.conftest import Exported


@pytest.mark.slow
@pytest.mark.parametrize("network", ["nafnet", "m2aenet"])
def test_adopted_networks(network: str, exported: Exported, tmp_path: Path) -> None:
    """The ops of m2aenet are functions, which are inlined; both pad inside, to any size."""
    model = onnx.load(exported(network).path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    artifact = deblur_export.adopt(tmp_path / "theirs.onnx", tmp_path / "ours.onnx")
    assert artifact.manifest.free == ("batch", "height", "width")
    assert artifact.manifest.input.multiple == 1 and not artifact.proto.functions
    assert deblur_export.verify(artifact).passed
    half = deblur_export.adopt(tmp_path / "theirs.onnx", tmp_path / "half.onnx", precision="fp16")
    assert deblur_export.verify(half).passed
