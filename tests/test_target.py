"""The records of the targets: their passes exist, and one more record is one more target."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest

from deblur_export.export.pipeline import ExportOptions, default_path, export_onnx
from deblur_export.export.to_onnx import PASSES
from deblur_export.models.checkpoint import load_model
from deblur_export.precision import LOW
from deblur_export.target import DEFAULT, TARGETS, Target, TargetName
from tests.tolerances import NETWORK_FLOAT32


def test_type_names_the_records() -> None:
    assert get_args(TargetName) == tuple(TARGETS)
    assert all(target.name == name for name, target in TARGETS.items())


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_record_names_exists(name: TargetName) -> None:
    target = TARGETS[name]
    assert set(target.passes) <= set(PASSES)
    assert set(target.refused) <= set(LOW)
    kinds = [kind for refused in target.refused.values() for kind in refused]
    assert all(onnx.defs.has(kind) for kind in kinds)
    # DeformConv, which these bodies hold, is of opset 19.
    assert not target.onnxruntime_bodies or target.opset >= 19


def test_every_pass_belongs_to_a_target() -> None:
    assert set(PASSES) == {name for target in TARGETS.values() for name in target.passes}


def test_another_record_is_another_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opset, passes, bodies and the name of the file follow from it alone."""
    toy = Target(
        "toy",  # type: ignore[arg-type]
        "for a test",
        opset=20,
        passes=("decompose_layer_norm", "remove_unused_nodes"),
    )
    monkeypatch.setitem(TARGETS, "toy", toy)  # type: ignore[arg-type]
    loaded = load_model("nafnet", "tiny", "random:0")
    files = {}
    for target in (DEFAULT, "toy"):
        options = ExportOptions(target, shape=(1, 3, 16, 16))  # type: ignore[arg-type]
        files[target] = export_onnx(loaded, options, tmp_path / default_path(loaded, options))
    model = onnx.load(tmp_path / "nafnet_tiny_toy.onnx")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [20]
    kinds = {node.op_type for node in model.graph.node}
    assert "LayerNormalization" not in kinds
    assert "LayerNormalization" in {n.op_type for n in onnx.load(files[DEFAULT].path).graph.node}
    image = {"image": np.full((1, 3, 16, 16), 0.5, np.float32)}
    outputs = [
        onnxruntime.InferenceSession(str(artifact.path)).run(None, image)[0]
        for artifact in files.values()
    ]
    np.testing.assert_allclose(*outputs, **NETWORK_FLOAT32)
