"""Exported files on the oldest runtimes that this Python can install, beside today's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from deblur_export import models
from deblur_export.artifact import Artifact
from deblur_export.calibration.calibrate import Calibration, calibrate
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import random_cases
from deblur_export.export.inline import inlined_file
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.export.runtimes.onnxruntime_release import (
    HALF_NORM,
    OLDEST,
    OPERATORS,
    OPSETS,
    oldest_release,
)
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.runtimes.probe import version_tuple
from deblur_export.target import TARGETS, TargetName
from tests.conftest import Exported, usual_options
from tests.venvs import environment, first_from, run

OLDEST_OPENVINO = "2024.6.0"
# Of images in 0..1. In int8, a value next to the edge of a step may be rounded to the other side.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}
# Reads every NAME.onnx of a folder and its NAME.npy, and writes NAME.result.npy.
ON_ONNXRUNTIME = """
import sys
from pathlib import Path
import numpy, onnxruntime
print(onnxruntime.__version__)
for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    image = numpy.load(file.with_suffix(".npy"))
    numpy.save(file.with_suffix(".result.npy"), session.run(["restored"], {"image": image})[0])
"""
ON_OPENVINO = """
import sys
from pathlib import Path
import numpy, openvino
print(openvino.__version__)
core = openvino.Core()
for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
    model = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = model.create_infer_request()
    request.start_async({"image": numpy.load(file.with_suffix(".npy"))})
    request.wait()
    numpy.save(file.with_suffix(".result.npy"), request.get_output_tensor(0).data)
"""
RELEASES = sorted(
    {release.version for release in (OLDEST, HALF_NORM, *OPSETS.values(), *OPERATORS.values())},
    key=version_tuple,
)


def in_other_precisions(artifact: Artifact, folder: Path) -> list[Artifact]:
    """A float32 file without discrete choices, in float16 and in int8."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    calibration = Calibration(images=photos, count=2, crop=64, max_drop=100.0)
    return [
        typed_artifact(artifact, "fp16", folder / "fp16.onnx"),
        calibrate(artifact, calibration, folder / "int8.onnx").artifact,
    ]


def compare(python: Path, code: str, files: list[Artifact], folder: Path) -> str:
    """Run files there and on today's ONNX Runtime, and compare; returns what was printed there."""
    folder.mkdir()
    for number, artifact in enumerate(files):
        np.save(folder / f"{number}.npy", random_cases(artifact.manifest.input.shape)[0].image)
        (folder / f"{number}.onnx").write_bytes(artifact.path.read_bytes())
    printed = run(python, "-c", code, folder, folder=folder)
    for number, artifact in enumerate(files):
        image = np.load(folder / f"{number}.npy")
        expected = open_session(artifact.path).run({"image": image})["restored"]
        result = np.load(folder / f"{number}.result.npy")
        assert result.shape == expected.shape
        tolerance = TOLERANCES[artifact.manifest.precision]
        assert np.abs(result - expected).max() < tolerance, artifact.manifest.title
    return printed.strip()


@pytest.mark.matrix
@pytest.mark.parametrize("release", RELEASES)
def test_every_file_runs_on_the_release_that_it_names(
    release: str, exported: Exported, tmp_path: Path
) -> None:
    version = first_from("onnxruntime", release)
    # Before 1.19 it was compiled for NumPy 1.
    numpy = ["numpy<2"] if version_tuple(version) < (1, 19) else []
    python = environment(tmp_path / "venv", f"onnxruntime=={version}", *numpy)
    files = [
        exported(name, options=usual_options(name, target))
        for name in models.NAMES
        for target in TARGETS
    ]
    files += in_other_precisions(exported("nafnet"), tmp_path)
    wanted = [file for file in files if oldest_release(file.proto).version == release]
    assert len(wanted) > {"1.15": 20, "1.21": 5}.get(release, 0), "files were expected here"
    assert compare(python, ON_ONNXRUNTIME, wanted, tmp_path / "files") == version


@pytest.mark.matrix
def test_files_without_custom_ops_run_on_an_old_openvino(
    exported: Exported, tmp_path: Path
) -> None:
    version = first_from("openvino", OLDEST_OPENVINO)
    python = environment(tmp_path / "venv", f"openvino=={version}")
    files = [exported(name, options=usual_options(name, "openvino")) for name in models.NAMES]
    alone = [
        inlined_file(file, tmp_path / f"{file.manifest.model.name}.onnx")
        if file.manifest.custom_ops
        else file
        for file in files
    ]
    printed = compare(python, ON_OPENVINO, alone, tmp_path / "files")
    assert version_tuple(printed.split("-")[0]) == version_tuple(version)


@pytest.mark.parametrize(
    ("model", "target", "release"),
    [
        ("nafnet", "portable", "1.15"),
        ("m2aenet", "openvino", "1.15"),
        ("nafnet", "ort", "1.21"),
        ("m2aenet", "ort", "1.25"),
    ],
)
def test_the_oldest_release_follows_from_the_content(
    exported: Exported, model: str, target: TargetName, release: str
) -> None:
    options = replace(usual_options(model), target=target)
    assert oldest_release(exported(model, options=options).proto).version == release


def test_a_release_that_is_too_old_is_named(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself says only that DeformConv(22) has no implementation."""

    def refuse(*arguments: object, **named: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED")

    artifact = exported("m2aenet", options=replace(usual_options("m2aenet"), target="ort"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeblurExportError, match=r"cannot load it: .*NOT_IMPLEMENTED"):
        open_session(artifact.path)
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    needed = r"needs ONNX Runtime 1\.25 or newer, and this is 1\.23\.2; pip install -U onnxruntime"
    with pytest.raises(DeblurExportError, match=needed):
        open_session(artifact.path)
