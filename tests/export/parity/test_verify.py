"""verify passes what is right, fails what is wrong, and says where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from deblur_export import artifact as ground
from deblur_export.artifact import Artifact, read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import photo_cases, random_cases
from deblur_export.export.parity.record import record_parity
from deblur_export.export.parity.verify import compare_layers, reference_model, verify
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.models.decisions import decisions, with_choices
from deblur_export.precision import GraphPrecision
from tests.conftest import Exported
from tests.test_cli import Invoke, invoke
from tests.tolerances import LAYER_FLOAT32

__all__ = ["invoke"]  # a fixture
DYNAMIC = ("batch", 3, "height", "width")


def scaled(artifact: Artifact, folder: Path, name: str, factor: float) -> Artifact:
    """The artifact with one weight changed, as a separate file."""
    model = onnx.load(artifact.path)
    tensor = next(i for i in model.graph.initializer if i.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, name))
    path = folder / "changed.onnx"
    onnx.save(model, path)
    return read_artifact(path)


def test_correct_file_passes_on_random_images_and_photos(
    exported: Exported, photos: Path, tmp_path: Path
) -> None:
    artifact = exported()
    shutil.copy(photos / "chelsea.png", tmp_path)
    cases = [*random_cases(DYNAMIC), *photo_cases(tmp_path, DYNAMIC)]
    report = verify(artifact, reference_model(artifact), cases)
    assert report.passed, report.verdict
    assert max(case.max_abs for case in report.cases) < 2e-5
    assert all(case.psnr > 90 and case.ssim > 0.99999 for case in report.cases)
    assert {case.shape[0] for case in report.cases} == {1, 2}


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("encoders.1.0.conv4.weight", "encoders.1.0.conv4"),
        ("encoders.3.2.deform.weight", "encoders.3.2.deform"),
        ("middle_blks.0.conv5.bias", "middle_blks.0.conv5"),
        ("ending.weight", "ending"),
    ],
)
def test_wrong_weight_fails_and_its_layer_is_named(
    exported: Exported, tmp_path: Path, weight: str, layer: str
) -> None:
    artifact = scaled(exported(), tmp_path, weight, 1.05)
    report = verify(artifact, reference_model(artifact), random_cases(DYNAMIC)[:1])
    assert not report.passed
    assert report.first_diverged == layer


def test_wrong_mask_fails_although_images_are_compared_under_it(
    exported: Exported, tmp_path: Path
) -> None:
    name = "mask_predictor.head.4.bias"
    artifact = scaled(exported(), tmp_path, name, -20.0)
    report = verify(artifact, reference_model(artifact), random_cases(DYNAMIC)[:1])
    assert not report.passed
    assert "mask: a choice differs" in report.cases[0].reason
    assert report.first_diverged in {"mask_predictor.head.4", "mask_predictor"}


@pytest.mark.parametrize(
    ("model", "reparam"),
    [
        ("m2aenet", True),
        ("m2aenet", False),
        ("nafnet", True),
        pytest.param("nafnet", False, marks=pytest.mark.slow),
    ],
)
def test_layers_agree(exported: Exported, model: str, reparam: bool) -> None:
    # Tracing what nothing else needs takes a fraction of the time with a fixed size.
    shape = None if reparam else (2, 3, 33, 47)
    artifact = exported(model, options=ExportOptions(shape=shape, reparam=reparam))
    layers = compare_layers(artifact, reference_model(artifact), random_cases(DYNAMIC)[1])
    assert len(layers) > 80
    assert not any(layer.diverged for layer in layers)


def test_borderline_mask_pixel_is_tolerated(exported: Exported, tmp_path: Path) -> None:
    """One pixel lies on the threshold: rounding may decide it, and the file still is right."""
    artifact = exported()
    model = reference_model(artifact)
    case = random_cases(DYNAMIC)[0]
    net = model.net
    features, _ = net.encode_shallow(torch.from_numpy(case.image))  # type: ignore[operator]
    margin = net.mask.margin(net.mask_predictor(features)).flatten()  # type: ignore[union-attr, operator]
    nearest = margin.abs().min().item() * (1 if margin[margin.abs().argmin()] > 0 else -1)
    name = "mask_predictor.head.4.bias"
    onnx_model = onnx.load(artifact.path)
    tensor = next(i for i in onnx_model.graph.initializer if i.name == name)
    shifted = numpy_helper.to_array(tensor) - np.float32(nearest * 1.0001)
    tensor.CopyFrom(numpy_helper.from_array(shifted.astype(np.float32), name))
    path = tmp_path / "borderline.onnx"
    onnx.save(onnx_model, path)
    report = verify(read_artifact(path), model, [case])
    assert report.cases[0].flips == 1
    assert report.cases[0].max_abs < 2e-5, "compared under the same mask"
    assert report.passed == (abs(nearest) < 1e-4)


SAPHN = ("saphn", "tiny-nonuniform", ExportOptions(shape=(2, 3, 33, 47)))


@pytest.mark.parametrize(
    ("factor", "passes"),
    [(1.0002, True), pytest.param(1.001, False, marks=pytest.mark.slow), (-1.0, False)],
)
def test_ranking_may_differ_where_scores_are_borderline(
    exported: Exported, tmp_path: Path, factor: float, passes: bool
) -> None:
    """The scores that rank the pixels are scaled: the order stays but for rounding, or turns."""
    name, variant, options = SAPHN
    sampler = "stages.1.sampler.4.weight"
    artifact = scaled(exported(name, variant, options=options), tmp_path, sampler, factor)
    report = verify(artifact, reference_model(artifact), random_cases(options.shape))
    flips = sum(case.flips or 0 for case in report.cases)
    reasons = [case.reason for case in report.cases]
    assert report.passed == passes, reasons
    assert flips > 0
    assert all("select" in reason for reason in reasons if reason)
    assert max(case.max_abs for case in report.cases) < 2e-5, "compared under the same pixels"


@pytest.mark.parametrize("number", [-1, 10**9])
def test_pixels_that_do_not_exist_are_no_choice(exported: Exported, number: int) -> None:
    name, variant, options = SAPHN
    artifact = exported(name, variant, options=options)
    net = reference_model(artifact).net
    image = torch.from_numpy(random_cases(options.shape)[0].image)
    path = "stages.1.select.0"
    own: list[torch.Tensor] = []
    with decisions(net)[path].register_forward_hook(lambda m, i, o: own.append(o)), torch.no_grad():
        untouched = net(image)
    wrong = own[0].clone()
    wrong[0, -1] = number
    with with_choices(net, {path: wrong.numpy()}) as checks, torch.no_grad():
        assert torch.equal(net(image), untouched)
    assert "is not a possible choice" in checks[0].reason


def test_weights_that_moved_or_changed(exported: Exported, tmp_path: Path) -> None:
    artifact = exported()
    other = tmp_path / "other.pth"
    net = reference_model(artifact).net
    torch.save({k: 2 * v for k, v in net.state_dict().items()}, other)
    with pytest.raises(DeblurExportError, match="not the weights"):
        reference_model(artifact, str(other))
    torch.save({"params": net.state_dict()}, other)
    assert reference_model(artifact, str(other)).sha256 == artifact.manifest.weights.sha256
    with pytest.raises(DeblurExportError, match="--weights"):
        reference_model(artifact, str(tmp_path / "gone.pth"))


def test_parity_is_recorded(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(exported().path.read_bytes())
    artifact = read_artifact(path)
    record_parity(artifact, verify(artifact, reference_model(artifact), random_cases(DYNAMIC)[:2]))
    parity = read_artifact(path).manifest.parity
    assert parity is not None and parity.cases == 2
    assert 0 < parity.max_abs < 2e-5


def test_means_over_a_large_photo_stay_accurate(
    exported: Exported, photos: Path, tmp_path: Path
) -> None:
    """One reduction over 512 x 512 values loses 1e-4 in ONNX Runtime; two short ones do not."""
    artifact = exported()
    shutil.copy(photos / "astronaut.png", tmp_path)
    (case,) = photo_cases(tmp_path, DYNAMIC)
    layers = compare_layers(artifact, reference_model(artifact), case)
    worst = max(layers, key=lambda layer: layer.rms_rel)
    assert worst.rms_rel < LAYER_FLOAT32, worst


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("pages", [(), ("--html", "r.html")])
def test_one_run_parses_and_hashes_the_file_once(
    exported: Exported,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    precision: GraphPrecision,
    pages: tuple[str, ...],
) -> None:
    """Layers (--html) and the record of parity at the end included."""
    source = exported(options=ExportOptions(shape=(1, 3, 32, 32)))
    path = tmp_path / "net.onnx"
    if precision == "fp32":
        shutil.copy(source.path, path)
        Artifact(path, source.manifest).recorded()
    else:
        typed_artifact(source, precision, path)
    calls = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return call(*arguments, **named)

        return count

    # onnx_ir.load goes through onnx.load as well.
    monkeypatch.setattr(onnx, "load", counted("parse", onnx.load))
    monkeypatch.setattr(ground, "file_sha256", counted("hash", ground.file_sha256))
    code, out, err = invoke("verify", path, *pages)
    assert (code, err) == (0, ""), out
    assert sorted(calls) == ["hash", "parse"]
    assert read_artifact(path).manifest.parity is not None
