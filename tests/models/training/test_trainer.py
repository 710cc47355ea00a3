"""The training loop learns, continues after interruptions and stops when it diverges."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.models.nafnet import NAFNet
from deblur_export.models.training import phases, trainer
from deblur_export.models.training.data.dataset import Dataset
from deblur_export.models.training.schedule import Schedule
from deblur_export.models.training.state import LOG, STATE, Folder
from deblur_export.models.training.trainer import Options, Trainer
from tests.models.training.quiet import quiet
from tests.models.training.small_dataset import write_dataset


def make(dataset: Path, path: Path, steps: int = 8, validate: int = 4, lr: float = 2e-3) -> Trainer:
    """A trainer of a small NAFNet with always the same initial weights."""
    torch.manual_seed(0)
    net = NAFNet(4, (1, 1, 1, 1), 1, (1, 1, 1, 1))
    phases.prepare(net, fresh=True)
    path.mkdir(exist_ok=True)
    options = Options(
        Schedule(steps, None, lr=lr),
        {"model": "nafnet:small", "steps": steps, "lr": lr},
        batch=2,
        crop=32,
        validate=validate,
    )
    folder = Folder(path)
    return Trainer(net, Dataset(dataset, "train"), Dataset(dataset, "val"), folder, options)


def run(made: Trainer, stop_at: int | None = None) -> bool:
    """Run the trainer and call `stop` during step `stop_at`, as a signal would."""
    advance = made.advance

    def interrupted() -> float:
        if made.step + 1 == stop_at:
            made.stop()
        return advance()

    made.advance = interrupted  # type: ignore[method-assign]
    with quiet() as display:
        return made.run(display)


def test_thirty_steps_reduce_the_loss(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "faded", fade=0.6)
    made = make(dataset, tmp_path / "run", steps=30, validate=100, lr=1e-2)
    held_out = next(Dataset(dataset, "val").whole(2, 2))
    before = made.loss(held_out).item()
    assert run(made)
    assert made.loss(held_out).item() < 0.8 * before
    (line,) = made.folder.entries()
    assert line["psnr"] > line["blurred_psnr"] + 1


@pytest.mark.parametrize("stop_at", [3, 4])
def test_an_interrupted_run_continues_bit_exactly(
    dataset: Path, tmp_path: Path, stop_at: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(make(dataset, whole))
    first = make(dataset, parts)
    assert not run(first, stop_at)
    assert first.step == stop_at
    assert not (parts / "last.safetensors").exists()
    second = make(dataset, parts)
    assert second.step == stop_at
    torch.manual_seed(99)  # nothing depends on the state of the generator
    assert run(second)
    assert (whole / "last.safetensors").read_bytes() == (parts / "last.safetensors").read_bytes()
    assert (whole / "best.safetensors").read_bytes() == (parts / "best.safetensors").read_bytes()
    logs = [Folder(path).entries() for path in (whole, parts)]
    scores = [[(line["step"], line["psnr"]) for line in log] for log in logs]
    assert scores[0] == scores[1]
    assert [step for step, _ in scores[0]] == [4, 8]


def test_a_killed_run_repeats_what_was_not_saved(dataset: Path, tmp_path: Path) -> None:
    made = make(dataset, tmp_path, validate=2)
    assert not run(made, stop_at=3)
    Folder(tmp_path).log({"step": 4, "psnr": 1.0})  # written after the state
    with (tmp_path / LOG).open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "ps')  # and cut off
    assert run(make(dataset, tmp_path, validate=2))
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / LOG).read_text(encoding="utf-8").splitlines()
    ]
    assert steps == [2, 4, 6, 8]


def test_a_run_with_other_arguments_is_refused(dataset: Path, tmp_path: Path) -> None:
    assert not run(make(dataset, tmp_path), stop_at=1)
    with pytest.raises(DeblurExportError, match=r"other arguments \(lr 0\.002 -> 0\.003\)"):
        make(dataset, tmp_path, lr=3e-3)


def test_a_finished_run_is_not_changed(dataset: Path, tmp_path: Path) -> None:
    assert run(make(dataset, tmp_path))
    before = (tmp_path / LOG).read_bytes()
    again = make(dataset, tmp_path)
    assert run(again)
    assert again.step == 8
    assert (tmp_path / LOG).read_bytes() == before


def test_a_damaged_state_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"damaged")
    with pytest.raises(DeblurExportError, match="damaged"):
        make(dataset, tmp_path)


def test_crops_larger_than_the_images_are_refused(dataset: Path, tmp_path: Path) -> None:
    options = Options(Schedule(1, None), {}, crop=64)
    parts = Dataset(dataset, "train"), Dataset(dataset, "val")
    with pytest.raises(
        DeblurExportError, match="48 pixels wide or high, fewer than the crop of 64"
    ):
        Trainer(nn.Conv2d(3, 3, 1), *parts, Folder(tmp_path), options)


def test_bad_steps_are_skipped_and_many_stop_the_run(dataset: Path, tmp_path: Path) -> None:
    made = make(dataset, tmp_path, steps=40, validate=100)
    weights = [p.detach().clone() for p in made.net.parameters()]
    loss, bad = made.loss, {0, 1, *range(5, 40)}

    def sometimes(batch: trainer.Batch) -> Tensor:
        return loss(batch) * (math.nan if made.step in bad else 1)

    made.loss = sometimes  # type: ignore[method-assign]
    made.advance(), made.advance()
    assert made.skipped == made.failures == 2
    assert all(torch.equal(p, w) for p, w in zip(made.net.parameters(), weights, strict=True))
    made.advance()
    assert (made.skipped, made.failures) == (2, 0)
    with pytest.raises(DeblurExportError, match="not finite, up to step 15; try a lower --lr"):
        run(made)
    assert all(p.isfinite().all() for p in made.net.parameters())


def test_the_clock_continues_after_an_interruption(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    made = make(dataset, tmp_path)
    made.options = trainer.Options(
        Schedule(None, minutes=1), made.options.arguments, batch=2, crop=32, validate=100
    )
    advance = made.advance

    def slow() -> float:
        now[0] += 10
        return advance()

    made.advance = slow  # type: ignore[method-assign]
    assert not run(made, stop_at=4)
    state = Folder(tmp_path).load_state(made.options.arguments)
    assert state is not None
    assert state["numbers"]["seconds"] == 40
    assert made.progress == pytest.approx(40 / 60)
