"""The second form of a file: the same network in standard operators only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deblur_export.artifact import Artifact, read_artifact
from deblur_export.export.graph import inlined_path
from deblur_export.export.images.cases import random_cases
from deblur_export.export.inline import inlined_file
from deblur_export.export.parity.verify import reference_model, verify
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.runtimes.openvino import LOAD, OPENVINO
from deblur_export.export.runtimes.probe import trial
from deblur_export.target import TargetName
from tests import needs
from tests.conftest import Exported, usual_options


def inline(exported: Exported, folder: Path, model: str, target: TargetName) -> Artifact:
    artifact = exported(model, options=replace(usual_options(model), target=target))
    return inlined_file(artifact, folder / "net.inlined.onnx")


def test_name() -> None:
    assert inlined_path(Path("a/net.onnx")) == Path("a/net.inlined.onnx")


@pytest.mark.parametrize("target", ["portable", "openvino"])
def test_the_file_computes_the_same_and_has_no_ops(
    exported: Exported, tmp_path: Path, target: TargetName
) -> None:
    artifact = exported("m2aenet", options=replace(usual_options("m2aenet"), target=target))
    assert artifact.manifest.custom_ops
    made = inlined_file(artifact, tmp_path / "net.inlined.onnx")
    again = read_artifact(made.path)
    assert again.manifest == made.manifest
    assert again.manifest.custom_ops == ()
    assert not again.proto.functions
    assert {entry.domain for entry in again.proto.opset_import} == {""}
    assert {node.domain for node in again.proto.graph.node} == {""}
    image = random_cases(artifact.manifest.input.shape)[0].image
    results = [open_session(a.path).run({"image": image})["restored"] for a in (artifact, made)]
    np.testing.assert_allclose(*results, atol=1e-6)


def test_the_file_is_verified_with_its_decisions_on_openvino(
    exported: Exported, tmp_path: Path
) -> None:
    needs.OPENVINO.require()
    made = inline(exported, tmp_path, "m2aenet", "openvino")
    cases = random_cases(made.manifest.input.shape)[:1]
    report = verify(made, reference_model(made), cases, runtime="openvino")
    assert report.passed, report.cases[0].reason
    assert report.cases[0].choices
    assert "native" not in report.candidate


def test_a_typed_file_stays_typed(exported: Exported, tmp_path: Path) -> None:
    typed = typed_artifact(exported("m2aenet"), "fp16", tmp_path / "net.onnx")
    made = inlined_file(typed, inlined_path(typed.path))
    assert made.manifest.precision == "fp16"
    cases = random_cases(made.manifest.input.shape)[:1]
    assert verify(made, reference_model(made), cases).passed


@pytest.mark.matrix
@pytest.mark.parametrize("model", ["m2aenet", "algnet", "aibnet", "saphn"])
def test_stock_openvino_loads_the_inlined_file_alone(
    exported: Exported, tmp_path: Path, model: str
) -> None:
    needs.OPENVINO.require()
    made = inline(exported, tmp_path, model, "openvino")
    assert trial(LOAD, str(made.path)) == (True, [])
    artifact = exported(model, options=replace(usual_options(model), target="openvino"))
    assert not trial(LOAD, str(artifact.path))[0]


def test_a_file_with_loops_is_not_for_openvino(exported: Exported, tmp_path: Path) -> None:
    """It converts some of them and crashes on others."""
    needs.OPENVINO.require()
    made = inline(exported, tmp_path, "algnet", "portable")
    verdict = OPENVINO.able(made)
    assert not verdict.able
    assert "loops" in verdict.reason
