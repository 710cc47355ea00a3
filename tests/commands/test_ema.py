"""--ema and --no-ema on every verb that reads a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import deblur_export
from deblur_export.artifact import read_artifact
from deblur_export.cli import cli
from deblur_export.errors import DeblurExportError
from deblur_export.export.parity.verify import reference_model
from deblur_export.export.timing.subjects import from_choice, from_files
from deblur_export.models.checkpoint import fingerprint
from deblur_export.models.loading import NetworkChoice, choice_of
from deblur_export.models.training.run import RunArguments
from tests.models.checkpoint_files import SMALL, random_state

VERBS = {
    "onnx": "--ema / --no-ema",
    "verify": "--ema / --no-ema",
    "trt": "--ema / --no-ema",
    "bench": "--ema / --no-ema",
    "train": "--init-ema / --no-init-ema",
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_reads_weights(verb: str) -> None:
    assert VERBS[verb] in CliRunner().invoke(cli, [verb, "--help"]).output


def test_what_was_taken_is_said_recorded_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    last, average = random_state("nafnet", 0, **SMALL), random_state("nafnet", 1, **SMALL)
    torch.save({"params": last, "params_ema": average}, "net.pth")
    arguments = "onnx --weights net.pth --ema --shape 1x3x16x16 --no-reparam -o net.onnx"
    done = CliRunner().invoke(cli, arguments.split(), catch_exceptions=False)
    assert (
        "note: two sets of weights in net.pth: 'params_ema' is taken, the averaged weights of the "
        "training; --no-ema takes 'params'"
    ) in done.output
    artifact = read_artifact(Path("net.onnx"))
    assert artifact.manifest.weights.sha256 == fingerprint(average)
    assert (artifact.manifest.weights.key, artifact.manifest.weights.ema) == ("params_ema", True)
    model = reference_model(artifact)
    assert model.sha256 == fingerprint(average)
    assert reference_model(artifact, ema=True).origin == "net.pth, params_ema"
    assert choice_of(model).load().sha256 == fingerprint(average)
    with pytest.raises(DeblurExportError, match="not the weights that net"):
        reference_model(artifact, ema=False)
    (subject,), _ = from_files([Path("net.onnx")], None)
    assert subject.network.load().sha256 == fingerprint(average)
    assert "'params_ema' is taken" in subject.notes[0]
    assert from_choice(NetworkChoice("nafnet", "net.pth")).network.ema is False
    with pytest.raises(DeblurExportError, match="not the weights that net"):
        deblur_export.verify(artifact, ema=False)


@pytest.mark.parametrize("asked", [True, False])
def test_what_has_no_sets(asked: bool) -> None:
    for model, weights, message in (
        ("nafnet", "random:0", "--ema and --no-ema are for checkpoints"),
        ("nafnet", "demo", "has no averaged weights, only the top of the file"),
    ):
        if weights == "demo" and not asked:
            assert deblur_export.load_model(model, weights, ema=asked).ema is False
            continue
        with pytest.raises(DeblurExportError, match=message):
            deblur_export.load_model(model, weights, ema=asked)


def test_options_that_would_be_ignored(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["trt", "--ema"])
    assert "--variant, --local and --ema belong to --model" in done.output
    run = RunArguments("nafnet", tmp_path, tmp_path, steps=1, init_ema=True)
    with pytest.raises(DeblurExportError, match="--init-ema is for the file of --init-from"):
        run.spec()
