"""doctor tells what is broken, and does not break with it."""

from __future__ import annotations

import io
import sys

import pytest

from deblur_export.commands import findings
from deblur_export.commands.console import make_console
from tests import needs


def test_a_library_that_does_not_load_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "CORE", {})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in [name for name in sys.modules if name.startswith("deblur_export.export.runtimes")]:
        monkeypatch.delitem(sys.modules, name)
    (finding,) = findings.core_findings()
    assert not finding.works
    assert "onnxruntime" in finding.note
    assert "pip install" in finding.note


def test_it_says_that_telemetry_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("core_findings", "other_findings"):
        monkeypatch.setattr(findings, name, lambda: iter(()))
    console = make_console(file=io.StringIO(), width=100)
    console.print(findings.doctor_table())
    (line,) = (line for line in console.file.getvalue().splitlines() if "telemetry" in line)
    assert "off" in line


@pytest.mark.trt
def test_a_builder_is_tried_as_trt_opens_it() -> None:
    needs.RTX.require()
    tried = {finding.builds: finding for finding in findings._builders()}
    assert tried["tensorrt-rtx"].works, tried["tensorrt-rtx"].note
