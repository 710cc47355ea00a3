"""Every bound of every precision: a file just inside passes, one just outside fails.

The errors are those of a wrong graph, which `GraphCheck` would find; it is left out where the
bounds themselves are tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from deblur_export.artifact import Artifact
from deblur_export.export.images.cases import Case, random_cases
from deblur_export.export.parity import reference as module
from deblur_export.export.parity.graph_check import GraphCheck
from deblur_export.export.parity.report import ParityReport
from deblur_export.export.parity.verify import _compare, compare_layers, reference_model, verify
from deblur_export.export.pipeline import ExportOptions
from deblur_export.models.decisions import Allowance, with_choices
from deblur_export.precision import INT8, PRECISIONS
from deblur_export.precision import LOW as LOW_FLOATS
from tests.conftest import Exported
from tests.manifests import in_precision

SHAPE = (1, 3, 32, 32)
LAYER = "ending"
INSIDE, OUTSIDE = 0.99, 1.01
LOW = (*LOW_FLOATS, INT8.name)
Image = NDArray[np.float32]
bounds = pytest.mark.parametrize(("factor", "passes"), [(INSIDE, True), (OUTSIDE, False)])
precisions = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture
def original(exported: Exported) -> Artifact:
    """A small exact file; what it claims to be in is changed, what it computes is not."""
    return exported("nafnet", options=ExportOptions(shape=SHAPE))


@pytest.fixture
def without_graph_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GraphCheck, "judged", lambda self, case, result: result)


def claiming(original: Artifact, precision: str, model: onnx.ModelProto, folder: Path) -> Artifact:
    path = folder / "claiming.onnx"
    onnx.save(model, path)
    return Artifact(path, replace(original.manifest, **in_precision(precision)))


def with_error(original: Artifact, precision: str, error: Image, folder: Path) -> Artifact:
    """The file with `error` added to its output."""
    model = onnx.load(original.path)
    (last,) = (node for node in model.graph.node if "restored" in node.output)
    last.output[:] = ["exact"]
    model.graph.initializer.append(numpy_helper.from_array(error, "error"))
    model.graph.node.append(onnx.helper.make_node("Add", ["exact", "error"], ["restored"]))
    return claiming(original, precision, model, folder)


def judged(artifact: Artifact) -> ParityReport:
    return verify(artifact, reference_model(artifact), random_cases(SHAPE)[:1])


@pytest.mark.usefixtures("without_graph_check")
@precisions
@bounds
def test_one_pixel(
    original: Artifact, tmp_path: Path, precision: str, factor: float, passes: bool
) -> None:
    error = np.zeros(SHAPE, np.float32)
    error[0, 1, 5, 7] = factor * PRECISIONS[precision].tolerances.max_abs
    report = judged(with_error(original, precision, error, tmp_path))
    assert report.passed == passes, report.cases[0].reason
    assert passes or report.cases[0].reason.startswith("max error")


@pytest.mark.parametrize(
    "precision", [name for name, record in PRECISIONS.items() if record.tolerances.psnr]
)
@bounds
@pytest.mark.usefixtures("without_graph_check")
def test_all_pixels(
    original: Artifact, tmp_path: Path, precision: str, factor: float, passes: bool
) -> None:
    size = factor * 10 ** (-PRECISIONS[precision].tolerances.psnr / 20)
    report = judged(with_error(original, precision, np.full(SHAPE, size, np.float32), tmp_path))
    assert report.passed == passes, report.cases[0].reason
    assert passes or report.cases[0].reason.startswith("PSNR")


@pytest.mark.parametrize("precision", LOW)
def test_a_wrong_graph_is_not_hidden_by_the_bounds_of_a_low_precision(
    original: Artifact, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is ten times that of a wrong float32 file, and within the bounds."""
    size = 10 * PRECISIONS["fp32"].tolerances.max_abs
    wrong = with_error(original, precision, np.full(SHAPE, size, np.float32), tmp_path)
    report = judged(wrong)
    assert not report.passed
    assert report.cases[0].reason == (
        "its graph without roundings: max error 1.0e-03 is above 1e-04"
    )
    assert report.cases[0].without_rounding == pytest.approx(size, rel=0.01)
    assert report.layers
    monkeypatch.setattr(GraphCheck, "judged", lambda self, case, result: result)
    assert judged(wrong).passed


@precisions
@bounds
def test_one_layer(
    original: Artifact, tmp_path: Path, precision: str, factor: float, passes: bool
) -> None:
    model = onnx.load(original.path)
    larger = np.float32(1 + factor * PRECISIONS[precision].tolerances.layer_rms_rel)
    for tensor in model.graph.initializer:
        if tensor.name.startswith(f"{LAYER}."):
            values = numpy_helper.to_array(tensor) * larger
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    artifact = claiming(original, precision, model, tmp_path)
    layers = compare_layers(artifact, reference_model(artifact), random_cases(SHAPE)[0])
    diverged = [layer.name for layer in layers if layer.diverged]
    assert diverged == ([] if passes else [LAYER])


@precisions
def test_choices(
    original: Artifact, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are judged within the bounds of the precision; `decisions` holds what a bound means."""
    given = []

    @contextmanager
    def recording(net: Any, choices: Mapping[str, Any], allowance: Allowance) -> Iterator[Any]:
        given.append(allowance)
        with with_choices(net, choices, allowance) as checks:
            yield checks

    monkeypatch.setattr(module, "with_choices", recording)
    artifact = claiming(original, precision, onnx.load(original.path), tmp_path)
    assert judged(artifact).passed
    bounds = PRECISIONS[precision].tolerances
    # The graph without roundings is judged as a float32 file.
    without_roundings = [Allowance()] * (precision != "fp32")
    assert given == [Allowance(bounds.flips, bounds.flip_distance), *without_roundings]


@pytest.mark.parametrize(("reach", "peak"), [(1.0, 1.0), (1.4, 1.0), (-7.0, 7.0)])
def test_tolerances_follow_outputs_beyond_images(reach: float, peak: float) -> None:
    fp16 = PRECISIONS["fp16"].tolerances
    reference = np.linspace(0, reach, 192, dtype=np.float32).reshape(1, 3, 8, 8)
    case = Case("case", reference)
    for error, passed in ((0.9, True), (1.1, False)):
        candidate = reference + np.float32(error * peak * fp16.max_abs)
        result = _compare(case, candidate, reference, (), None, False, replace(fp16, psnr=0), None)
        assert result.passed == passed and result.peak == peak
    # What the user asks for is an absolute PSNR.
    candidate = reference + np.float32(0.01)
    assert not _compare(case, candidate, reference, (), None, False, fp16, 40.1).passed
