"""Every network in fp32, fp16 and int8 as a user's own CI compares it: by polygraphy alone.

The output of the PyTorch network is a file, as polygraphy saves it; ours runs in polygraphy's own
ONNX Runtime runner, and its comparator judges.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.comparator import Comparator, CompareFunc, RunResults
from polygraphy.logger import G_LOGGER

from deblur_export import models
from deblur_export.artifact import Artifact
from deblur_export.calibration.calibrate import Calibration, calibrate
from deblur_export.export.images.cases import random_cases
from deblur_export.export.parity.runners import TorchRunner
from deblur_export.export.parity.verify import reference_model
from deblur_export.export.precision.typed import typed_artifact
from tests.conftest import Exported

# What a network may differ by in each precision: the largest error in float32, the mean below it,
# where discrete choices turn. Less than LOWERED would mean that nothing was rounded.
BOUNDS = {"fp32": ("max", 1e-4), "fp16": ("mean", 1e-3), "int8": ("mean", 5e-2)}
LOWERED = ("mean", 1e-6)
FEED = [{"image": random_cases((1, 3, 33, 47))[0].image}]
# Calibrating and comparing these takes longest.
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("aibnet", "saphn")))
    for name in models.NAMES
]
Convert = Callable[[Artifact, str], Path]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """convert(artifact, precision) -> the file in that precision; int8 from one crop."""

    def make(artifact: Artifact, precision: str) -> Path:
        path = tmp_path / f"net_{precision}.onnx"
        if precision == "fp32":
            return artifact.path
        if precision == "fp16":
            return typed_artifact(artifact, "fp16", path).path
        photos = tmp_path / "photos"
        photos.mkdir()
        rgb = FEED[0]["image"][0].transpose(1, 2, 0).repeat(2, axis=0).repeat(2, axis=1)
        Image.fromarray(np.rint(255 * rgb).astype(np.uint8)).save(photos / "one.png")
        options = Calibration(
            photos, method="minmax", count=1, crop=32, max_drop=1e9, cache=tmp_path
        )
        return calibrate(artifact, options, path).artifact.path

    return make


def run(file: Path) -> RunResults:
    """polygraphy run FILE --onnxrt; one thread, so that none waits spinning."""
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # folding constants, it warns of each float16 Pad
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return Comparator.run([OnnxrtRunner(session)], data_loader=FEED)


def agrees(reference: Path, results: RunResults, bound: tuple[str, float]) -> bool:
    """... --load-outputs REFERENCE --check-error-stat STAT --atol LIMIT --rtol 0"""
    stat, limit = bound
    both = RunResults.load(str(reference))
    both.extend(results)
    compare = CompareFunc.simple(atol=limit, rtol=0, check_error_stat=stat)
    return bool(Comparator.compare_accuracy(both, compare_func=compare))


def save_reference(artifact: Artifact, path: Path) -> Path:
    net = reference_model(artifact).net
    Comparator.run([TorchRunner(net)], data_loader=FEED).save(str(path))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_network_in_every_precision(
    exported: Exported, convert: Convert, name: str, tmp_path: Path
) -> None:
    artifact = exported(name)
    reference = save_reference(artifact, tmp_path / "pytorch.json")
    for precision in BOUNDS:
        results = run(convert(artifact, precision))
        assert agrees(reference, results, BOUNDS[precision]), precision
        assert agrees(reference, results, LOWERED) == (precision == "fp32"), precision


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_wrong_weight_fails(
    exported: Exported, convert: Convert, precision: str, tmp_path: Path
) -> None:
    artifact = exported("nafnet")
    model = onnx.load(convert(artifact, precision))
    tensor = next(t for t in model.graph.initializer if t.name == "encoders.1.0.conv4.weight")
    wrong = -numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    reference = save_reference(artifact, tmp_path / "pytorch.json")
    assert not agrees(reference, run(tmp_path / "wrong.onnx"), BOUNDS[precision])
