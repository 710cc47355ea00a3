"""`deblur-export train`: one line and exit code 2 for bad arguments, and a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblur_export.commands import train
from deblur_export.models.checkpoint import load_model
from tests.models.training.small_dataset import write_dataset
from tests.test_cli import Invoke, assert_refused, invoke

__all__ = ["invoke"]  # a fixture


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(autouse=True)
def quiet_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signal handlers and denormals of the test process stay as they are."""
    monkeypatch.setattr(train, "stop_on_signals", lambda trainer: None)
    monkeypatch.setattr("torch.set_flush_denormal", lambda _: True)


BAD = {
    "unknown model 'nafnett'": ("--model", "nafnett"),
    "no variant 'huge'": ("--variant", "huge"),
    "give the length of the run": (),
    "'many' is not a valid integer range": ("--steps", "many"),
    "'--steps': 0 is not in the range": ("--steps", "0"),
    "'--minutes': nan is not a finite number": ("--minutes", "nan"),
    "needs a multiple of 16": ("--steps", "1", "--crop", "40"),
    "algnet is supervised at an eighth": ("--steps", "1", "--model", "algnet", "--crop", "16"),
    "compares windows of 11 pixels, and algnet is supervised at a size of 8": (
        *("--steps", "1", "--model", "algnet", "--crop", "64", "--images", "l1-ssim"),
    ),
    "'paper' is not one of": ("--steps", "1", "--images", "paper"),
    "'--ema': 1.0 is not in the range": ("--steps", "1", "--ema", "1"),
    "'--focus': 2.0 is not in the range": ("--steps", "1", "--focus", "2"),
    "'--seed': -1 is not in the range": ("--steps", "1", "--seed", "-1"),
    "--batch must be at least 2": ("--steps", "1", "--model", "aibnet", "--batch", "1"),
    "--device gpu: not usable here": ("--steps", "1", "--device", "gpu"),
    "fewer than the crop of 64": ("--steps", "1", "--crop", "64"),
    "no such file": ("--steps", "1", "--init-from", "none.safetensors"),
    "NAFNet does not contain a NAFNet": ("--steps", "1", "--from-nafnet", "demo"),
    "--init-from and --from-nafnet exclude each other": (
        "--steps",
        "1",
        "--init-from",
        "a.pth",
        "--from-nafnet",
        "demo",
    ),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_arguments(said: str, dataset: Path, tmp_path: Path, invoke: Invoke) -> None:
    required = ("--model", "nafnet", "--dataset", dataset, "-o", tmp_path / "run")
    assert_refused(invoke("train", *required, *BAD[said]), said)


def test_a_run_leaves_weights_that_load(dataset: Path, tmp_path: Path, invoke: Invoke) -> None:
    common = ("train", "--model", "nafnet", "--dataset", dataset, "--batch", "2", "--crop", "16")
    first = tmp_path / "first"
    assert invoke(*common, "-o", first, "--steps", "2")[0] == 0
    weights = str(first / "best.safetensors")
    assert load_model(None, None, weights).title == "nafnet:tiny"
    second = ("-o", tmp_path / "second", "--steps", "1", "--init-from", weights)
    assert invoke(*common, *second)[0] == 0
    extended = ("--model", "dhnet", "-o", tmp_path / "dhnet", "--steps", "1")
    assert invoke(*common, *extended, "--from-nafnet", weights)[0] == 0
    last = str(tmp_path / "dhnet" / "last.safetensors")
    assert load_model(None, None, last).title == "dhnet:tiny"
