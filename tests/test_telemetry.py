"""No runtime reports to its maker, unless the user asked for it: no connection, no identifier."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deblur_export import telemetry
from tests import needs
from tests.conftest import Exported

SWITCH, PACKAGE = telemetry.ORT_SWITCH, telemetry.OPENVINO_PACKAGE
# Time for the threads that would report.
RESTORE = """
import sys, time
import deblur_export
import numpy
for runtime in ("onnxruntime", "openvino"):
    session = deblur_export.open_session(sys.argv[1], runtime=runtime)
    session(numpy.zeros((16, 16, 3), numpy.uint8))
time.sleep(0.5)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, nothing chosen and nothing imported."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(telemetry.platform, "system", lambda: "Linux")
    monkeypatch.setenv(SWITCH, "")
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return tmp_path


def consent(home: Path, text: str) -> None:
    (home / "intel").mkdir()
    (home / "intel" / "openvino_telemetry").write_text(text, encoding="utf-8")


def test_off_by_default(home: Path) -> None:
    telemetry.turn_off()
    assert os.environ[SWITCH] == "1"
    with pytest.raises(ImportError):
        __import__(PACKAGE)
    assert telemetry.state() == "off"
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("text", ["0", "", "yes"])
def test_no_consent(home: Path, text: str) -> None:
    consent(home, text)
    telemetry.turn_off()
    assert telemetry.state() == "off"


def test_who_opted_in_keeps_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    consent(home, "1\n")
    monkeypatch.setenv(SWITCH, "0")
    telemetry.turn_off()
    assert os.environ[SWITCH] == "0"
    assert PACKAGE not in sys.modules
    assert "ONNX Runtime (ORT_DISABLE_TELEMETRY=0), OpenVINO" in telemetry.state()


def test_a_module_that_is_loaded_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, telemetry)
    telemetry.turn_off()
    assert sys.modules[PACKAGE] is telemetry


def test_scripts_import_the_package_before_a_runtime() -> None:
    root = Path(__file__).parent.parent
    runtime = re.compile(r"^(?:import|from) (?:onnxruntime|openvino)\b", re.MULTILINE)
    scripts = [*(root / "bench").rglob("*.py"), root / "tests" / "__init__.py"]
    found = {}
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        if match := runtime.search(text):
            found[script.name] = re.search(
                r"^(?:import|from) deblur_export\b", text[: match.start()], re.M
            )
    assert found and all(found.values()), found


def can_trace() -> bool:
    """Whether strace is there and allowed to trace, which some containers forbid."""
    if not shutil.which("strace"):
        return False
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not can_trace(), reason=needs.STRACE.reason)
def test_nothing_is_sent_and_nothing_is_stored(exported: Exported, tmp_path: Path) -> None:
    """A fresh home folder stays empty, and no process opens a connection."""
    needs.OPENVINO.require()
    log, home = tmp_path / "connections", tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), SWITCH: ""}
    traced = ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect", "-o", str(log)]
    script = [sys.executable, "-c", RESTORE, str(exported().path)]
    subprocess.run([*traced, *script], env=environment, check=True)
    seen = log.read_text(encoding="utf-8", errors="replace")
    assert "exited with 0" in seen, "strace saw the process end"
    assert "AF_INET" not in seen
    assert list(home.rglob("*")) == []
