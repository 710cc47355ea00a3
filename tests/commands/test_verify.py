"""The line with which a failed verification ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblur_export.commands.verify import _failure
from deblur_export.export.parity.report import CaseResult, LayerError, ParityReport

FILE = Path("net.onnx")
LAYER = LayerError("downs.1", 0.5, 0.5, True)


def failed(layers: tuple[LayerError, ...] = (), first: str | None = None) -> ParityReport:
    case = CaseResult("a.png", (1, 3, 2, 2), 0.5, 0.1, 6, 6, 0.1, None, None, False, "too far")
    return ParityReport("net.onnx", "PyTorch", "file", {}, (case,), layers, first)


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (failed(), "net.onnx does not match PyTorch: a.png: too far"),
        (failed((LAYER,), "downs.1"), "too far; first layer that diverges: downs.1"),
        (failed((LAYER,)), "too far; none of the 1 compared layers diverges"),
        (ParityReport("net.onnx", "a", "b", {}, ()), "PyTorch: FAIL: no case was compared."),
    ],
)
def test_the_reason_is_there_and_a_layer_only_if_one_diverges(
    report: ParityReport, line: str
) -> None:
    assert _failure(FILE, report).endswith(line)
    assert "None" not in _failure(FILE, report)
