"""The training loop.

The optimizer is AdamW with betas (0.9, 0.9) and weight decay 1e-3, and gradients are clipped to a
norm of 0.01, as in NAFNet's official training for deblurring. Every step draws its crops and its
noise from its own seed, so that an interrupted run continues exactly as it would have without the
interruption.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.models.training import phases
from deblur_export.models.training.data.dataset import Batch, Dataset
from deblur_export.models.training.display import Display, summary
from deblur_export.models.training.objective import Weights, terms
from deblur_export.models.training.schedule import Average, Schedule
from deblur_export.models.training.scores import evaluate
from deblur_export.models.training.state import Folder

BETAS = (0.9, 0.9)
FAILURES = 10  # consecutive losses that are not finite


@dataclass(frozen=True)
class Options:
    """Options of a training.

    Attributes:
        schedule: length, phases and learning rate.
        arguments: everything that the result depends on, for the state file.
        batch: batch size in crops.
        crop: side of the crops in pixels.
        focus: fraction of the crops that are placed so that they contain blur.
        decay: weight decay.
        clip: norm that gradients are clipped to.
        average: decay of the exponential moving average of the weights.
        seed: everything random follows from it.
        bf16: autocast to bfloat16; the losses stay float32.
        encoder: AIBNet's encoder is trained with its first sub-decoder.
        fresh: the weights are newly initialised, and each phase initialises its part.
        weights: factors of the loss terms.
        validate: number of steps between validations.
        images: number of validation images.
        save: seconds between state files.
    """

    schedule: Schedule
    arguments: Mapping[str, Any]
    batch: int = 8
    crop: int = 128
    focus: float = 0.75
    decay: float = 1e-3
    clip: float = 0.01
    average: float = 0.999
    seed: int = 0
    bf16: bool = False
    encoder: bool = True
    fresh: bool = True
    weights: Weights = field(default_factory=Weights)
    validate: int = 500
    images: int = 32
    save: float = 180.0


class Trainer:
    """Trains a network. `run` returns when the training is complete or `stop` was called.

    Args:
        net: the network, on the device to train on.
        train, val: splits of a dataset.
        folder: receives state, log and weights; if it holds the state of an interrupted run, that
            run is continued.
        options: see `Options`.

    Raises:
        DeblurExportError: the folder holds another run, or the images are smaller than a crop.
    """

    def __init__(
        self, net: nn.Module, train: Dataset, val: Dataset, folder: Folder, options: Options
    ) -> None:
        if train.size < options.crop:
            raise DeblurExportError(
                f"the images of the dataset are {train.size} pixels wide or high, fewer than the "
                f"crop of {options.crop}"
            )
        # Norms over the channels read memory in order in this layout: it saves a tenth of a step.
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train, self.val = train, val
        self.folder, self.options = folder, options
        self.device = next(net.parameters()).device
        self.step, self.seconds, self.phase = 0, 0.0, 0
        self.failures = self.skipped = 0
        self.best = -math.inf
        self.stopped = False
        self.average = Average(net, options.average)
        self.optimizer = self.enter(0)
        self.resume()

    @property
    def progress(self) -> float:
        """The completed fraction of the run, 0 to 1."""
        return self.options.schedule.progress(self.step, self.seconds)

    def enter(self, phase: int) -> torch.optim.Optimizer:
        """Begin a phase; returns an optimizer of the parameters that are trained in it."""
        self.phase = phase
        phases.enter(self.net, phase, self.options.encoder)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            trained,
            lr=self.options.schedule.lr,
            betas=BETAS,
            weight_decay=self.options.decay,
            fused=True,
        )

    def next_phase(self) -> None:
        """End the current phase with the averaged weights, and begin the next one."""
        self.validate()
        self.net.load_state_dict(self.average.tensors)
        if self.options.fresh:
            phases.begin(self.net, self.phase + 1)
        self.average.restart(self.net)
        self.optimizer = self.enter(self.phase + 1)
        self.best = -math.inf

    def stop(self) -> None:
        """Let `run` end after the current step."""
        self.stopped = True

    def run(self, display: Display) -> bool:
        """Train until the schedule ends or `stop` is called; returns whether the schedule ended."""
        self.display = display
        self.clock = self.saved = time.monotonic()
        if self.progress >= 1 and self.folder.holds("last"):
            display.say("this run is already complete")
            return True
        while self.progress < 1 and not self.stopped:
            if self.options.schedule.phase(self.progress) > self.phase:
                self.next_phase()
            loss = self.advance()
            self.tick()
            display.step(self.step, self.progress, loss)
            self.validate_and_save()
        if self.progress >= 1:
            self.finish()
        self.save()
        return self.progress >= 1

    def tick(self) -> None:
        """Add the time since the last call to the training time."""
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def validate_and_save(self) -> None:
        """Validate and save the state if they are due."""
        if self.step % self.options.validate == 0 and self.progress < 1:
            self.validate()
        if self.clock - self.saved > self.options.save:
            self.save()
            self.saved = self.clock

    def advance(self) -> float:
        """Do one training step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.schedule.rate(self.progress)
        loss = self.loss(self.draw())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        trained = self.optimizer.param_groups[0]["params"]
        norm = nn.utils.clip_grad_norm_(trained, self.options.clip)
        self.step += 1
        if self.is_sound(loss, norm):
            self.optimizer.step()
            self.average.update(self.net)
        return float(loss.detach())

    def draw(self) -> Batch:
        """Draw the crops of this step, and set the seed of the network's own random numbers."""
        rng = np.random.default_rng((self.options.seed, self.step))
        torch.manual_seed(int(rng.integers(2**62)))
        options = self.options
        return self.train.draw(rng, options.batch, options.crop, options.focus).to(self.device)

    def loss(self, batch: Batch) -> Tensor:
        """The sum of all loss terms, a scalar in float32."""
        image = batch.blurred.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
            output = phases.run(self.net, image)
        parts = terms(output, batch, self.options.weights)
        return torch.stack(list(parts.values())).sum()

    def is_sound(self, loss: Tensor, norm: Tensor) -> bool:
        """Whether loss and gradient are finite, so that the step can be taken.

        Raises:
            DeblurExportError: they were not in FAILURES consecutive steps.
        """
        if bool(torch.isfinite(loss) & torch.isfinite(norm)):
            self.failures = 0
            return True
        self.failures += 1
        self.skipped += 1
        if self.failures >= FAILURES:
            raise DeblurExportError(
                f"training diverged: {FAILURES} consecutive losses were not finite, up to step "
                f"{self.step}; try a lower --lr"
            )
        return False

    def validate(self) -> dict[str, float]:
        """Evaluate the averaged weights, log the scores and write the weights if they are the best
        of the phase."""
        options, own = self.options, {k: v.clone() for k, v in self.net.state_dict().items()}
        self.net.load_state_dict(self.average.tensors)
        self.net.eval()
        with phases.presented(self.net, self.phase) as shown:
            batches = self.val.whole(options.images, options.batch)
            scores = evaluate(shown, batches, self.device)
            score = scores.get("psnr", scores.get("psnr_sharp", -math.inf))
            if score > self.best:
                self.best = score
                self.export("best", shown, scores)
        self.net.load_state_dict(own)
        self.net.train()
        self.report(scores)
        return scores

    def export(self, name: str, net: nn.Module, scores: Mapping[str, float]) -> None:
        """Write weights under the official key names, with the scores in the metadata."""
        options = self.options
        about = {"network": options.arguments.get("model"), "crop": options.crop, "step": self.step}
        self.folder.save_weights(name, net.state_dict(), {**about, **rounded(scores)})

    def report(self, scores: Mapping[str, float]) -> None:
        """Print scores and append them to the log."""
        self.folder.log(
            {
                "step": self.step,
                "minutes": round(self.seconds / 60, 3),
                "phase": self.phase,
                "lr": self.options.schedule.rate(self.progress),
                "loss": self.display.loss,
                "skipped": self.skipped,
                **rounded(scores),
            }
        )
        skipped = f", {self.skipped} steps skipped" if self.skipped else ""
        self.display.say(f"step {self.step}: {summary(scores)}{skipped}")

    def finish(self) -> None:
        """Evaluate and write the final averaged weights."""
        scores = self.validate()
        self.net.load_state_dict(self.average.tensors)
        self.export("last", self.net, scores)

    def save(self) -> None:
        """Write the state file."""
        numbers = ("step", "seconds", "phase", "skipped", "best")
        self.folder.save_state(
            {
                "arguments": dict(self.options.arguments),
                "numbers": {name: getattr(self, name) for name in numbers},
                "net": self.net.state_dict(),
                "average": self.average.tensors,
                "updates": self.average.updates,
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def resume(self) -> None:
        """Restore the state in the folder, if there is one."""
        state = self.folder.load_state(self.options.arguments)
        if state is None:
            return
        for name, value in state["numbers"].items():
            setattr(self, name, value)
        self.net.load_state_dict(state["net"])
        for name, tensor in state["average"].items():
            self.average.tensors[name].copy_(tensor)
        self.average.updates = state["updates"]
        self.optimizer = self.enter(self.phase)
        self.optimizer.load_state_dict(state["optimizer"])
        self.folder.forget_after(self.step)


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    """Round scores to four decimals."""
    return {name: round(value, 4) for name, value in scores.items()}
