"""bench/train.py: one line and exit code 2 for bad arguments, and a whole run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from deblur_export.export.checkpoint import load_model

SCRIPT = Path(__file__).parents[3] / "bench" / "train.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code. Signal handlers, threads and denormals of the test process stay as they are."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)
    monkeypatch.setattr("torch.set_flush_denormal", lambda _: True)
    with pytest.raises(SystemExit) as end:
        script.main()
    assert isinstance(end.value.code, int)
    return end.value.code


BAD = {
    "unknown model 'nafnett'": ("--model", "nafnett"),
    "no variant 'huge'": ("--variant", "huge"),
    "give the length of the run": (),
    "invalid positive value: 'many'": ("--steps", "many"),
    "must be at least 1": ("--steps", "0"),
    "--minutes: must be above 0": ("--minutes", "nan"),
    "needs a multiple of 16": ("--steps", "1", "--crop", "40"),
    "algnet is compared at an eighth": ("--steps", "1", "--model", "algnet", "--crop", "16"),
    "--ema 1.0": ("--steps", "1", "--ema", "1"),
    "--focus 2.0": ("--steps", "1", "--focus", "2"),
    "--seed -1": ("--steps", "1", "--seed", "-1"),
    "--batch must be at least 2": ("--steps", "1", "--model", "aibnet", "--batch", "1"),
    "--device gpu: not usable here": ("--steps", "1", "--device", "gpu"),
    "fewer than the crop of 64": ("--steps", "1", "--crop", "64"),
    "no such file": ("--steps", "1", "--init-from", "none.safetensors"),
    "NAFNet does not contain a NAFNet": ("--steps", "1", "--from-nafnet", "demo"),
    "not allowed with argument": ("--init-from", "a.pth", "--from-nafnet", "demo"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_arguments(
    said: str,
    script: ModuleType,
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    required = ("--model", "nafnet", "--pool", str(pool), "-o", str(tmp_path / "run"))
    assert call(script, monkeypatch, *required, *BAD[said]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_a_run_leaves_weights_that_load(
    script: ModuleType, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--model", "nafnet", "--pool", str(pool), "--batch", "2", "--crop", "16")
    first = tmp_path / "first"
    assert call(script, monkeypatch, *common, "-o", str(first), "--steps", "2") == 0
    weights = str(first / "best.safetensors")
    assert load_model(None, None, weights).title == "nafnet:tiny"
    second = ("-o", str(tmp_path / "second"), "--steps", "1", "--init-from", weights)
    assert call(script, monkeypatch, *common, *second) == 0
    heir = ("--model", "dhnet", "-o", str(tmp_path / "heir"), "--steps", "1")
    assert call(script, monkeypatch, *common, *heir, "--from-nafnet", weights) == 0
    assert load_model(None, None, str(tmp_path / "heir" / "last.safetensors")).title == "dhnet:tiny"
