"""The loss of PSNR that calibration reports, with ground truth and without."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from deblur_export.calibration.scoring import Evaluator

SHAPE = (1, 3, 64, 64)
IMAGE = np.full(SHAPE, 0.5, np.float32)


def adding(values: NDArray[np.floating]) -> onnx.ModelProto:
    """A network that adds these to the image."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[n, 3, h, w] image) => '
        "(float[n, 3, h, w] restored) { restored = Add(image, values) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), "values"))
    return model


def mean_squared(values: NDArray[np.floating], wanted: float) -> NDArray[np.floating]:
    """Scaled so that the mean of the squares is as wanted."""
    return values * np.sqrt(wanted / np.square(values).mean())


@pytest.mark.parametrize(
    ("error", "drop"),
    [
        # A network at 33 dB is off by a mean square of 10**-3.3, to which the error is added: as
        # much again halves the signal-to-noise ratio, three and nine times as much quarter and
        # tenth it.
        (10**-3.3, 3.0103),
        (3 * 10**-3.3, 6.0206),
        (9 * 10**-3.3, 10.0),
        (0.0, 0.0),
    ],
)
def test_estimate_without_ground_truth(error: float, drop: float) -> None:
    evaluator = Evaluator(adding(np.zeros(1)), [IMAGE], None)
    score = evaluator.score(adding(np.full(1, np.sqrt(error))))
    assert score.error == pytest.approx(error, rel=1e-5)
    assert score.drop == pytest.approx(drop, abs=1e-4)


def test_estimate_is_what_ground_truth_shows_of_unrelated_errors() -> None:
    """A network at 33 dB, and uncorrelated noise in place of its quantization."""
    random = np.random.default_rng(0)
    own = mean_squared(random.standard_normal(SHAPE), 10**-3.3)
    noise = random.standard_normal(SHAPE)
    added = mean_squared(noise - own * (noise * own).mean() / np.square(own).mean(), 2e-4)
    exact, rounded = adding(own), adding(own + added)
    measured = Evaluator(exact, [IMAGE], [IMAGE]).score(rounded)
    estimated = Evaluator(exact, [IMAGE], None).score(rounded)
    assert measured.error == estimated.error == pytest.approx(2e-4, rel=1e-3)
    assert measured.drop == pytest.approx(1.458, abs=2e-3)  # 10 lg (1 + 2e-4 / 10**-3.3)
    assert estimated.drop == pytest.approx(measured.drop, abs=2e-3)


def test_the_error_is_a_mean_over_images() -> None:
    """The estimate is of the mean error, which is not the mean of two estimates."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[n, 3, h, w] image) => '
        "(float[n, 3, h, w] restored) <float one = {1.0}> { restored = Sub(one, image) }"
    )
    images = [np.full(SHAPE, value, np.float32) for value in (0.5, 0.5 + np.sqrt(10**-3.3) / 2)]
    score = Evaluator(adding(np.zeros(1)), images, None).score(model)
    assert score.error == pytest.approx(10**-3.3 / 2, rel=1e-4)
    assert score.drop == pytest.approx(1.7609, abs=1e-4)  # 10 lg 1.5
