"""Fourier transforms of other networks are ops of ours, which every runtime has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deblur_export.errors import DeblurExportError
from deblur_export.export.precision.cast import lower_precision
from deblur_export.export.precision.check import check_precision
from deblur_export.export.to_onnx import lower, trace
from deblur_export.models.image_spec import ImageSpec
from deblur_export.plugins.parameters import SPECTRUM
from deblur_export.precision import GraphPrecision
from tests.export import foreign
from tests.export.foreign import Padded
from tests.export.loading import assert_close, assert_every_target_is, run_onnxruntime
from tests.tolerances import OP_BFLOAT16, OP_FLOAT16

SHAPES = ((1, 3, 24, 16), (2, 3, 7, 34))
# A runtime sums in float32; phases turn quickly where an amplitude is small.
TOLERANCE = 2e-5


@pytest.mark.parametrize(
    ("block", "multiple"),
    [
        (foreign.SpectralWindows, 8),
        (foreign.SpectralConvolution, 2),
        (foreign.AmplitudeAndPhase, 4),
        pytest.param(foreign.AutoCorrelation, 2, marks=pytest.mark.matrix),
        pytest.param(foreign.Separate, 4, marks=pytest.mark.matrix),
    ],
)
def test_free_sizes(block: type[Padded], multiple: int) -> None:
    graphs = assert_every_target_is(
        block().eval(), ImageSpec(multiple), SHAPES, tolerance=TOLERANCE
    )
    for graph in graphs.values():
        assert not any(node.op_type in ("DFT", "STFT") for node in graph.graph)


@pytest.mark.parametrize("precision", ["fp16", pytest.param("bf16", marks=pytest.mark.matrix)])
def test_low_precision_keeps_a_spectrum(precision: GraphPrecision) -> None:
    """The mean of an image of 320x320 is a sum beyond float16 in its spectrum."""
    net = foreign.SpectralConvolution().eval()
    graph = lower(trace(net, ImageSpec(2), None).graph, "portable")
    lowered, casting = lower_precision(graph, precision, "portable")
    assert any(name.endswith("Conv") or "conv" in name for name in casting.kept[SPECTRUM])
    check_precision(lowered, precision)
    image = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net.double()(image.double())
    tolerance = OP_FLOAT16 if precision == "fp16" else OP_BFLOAT16
    assert_close(run_onnxruntime(lowered, image), expected, tolerance, precision)


@pytest.mark.parametrize(
    "block",
    [pytest.param(foreign.SpectralConvolution, marks=pytest.mark.matrix), foreign.Separate],
)
def test_odd_fixed_sizes(block: type[Padded]) -> None:
    shape = (1, 3, 15, 27)
    assert_every_target_is(block().eval(), ImageSpec(1), (shape,), shape, tolerance=TOLERANCE)


class Untranslated(Padded):
    """The logarithm of a complex number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(torch.fft.fft2(x) + 2).real


def test_what_has_no_translation_is_refused_with_its_line() -> None:
    with pytest.raises(DeblurExportError, match=r"log on complex numbers .*test_fourier\.py:\d+"):
        trace(Untranslated().eval(), ImageSpec(2), None)
    line = next(
        n
        for n, t in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines(), 1)
        if "log(" in t
    )
    with pytest.raises(DeblurExportError, match=rf":{line};"):
        trace(Untranslated().eval(), ImageSpec(2), None)
