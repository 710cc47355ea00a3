"""`deblur-export train`."""

from __future__ import annotations

import math
import os
import signal
import warnings
from typing import Any

import click

from deblur_export.commands.common import PATH, make_console
from deblur_export.errors import DeblurExportError
from deblur_export.models import NAMES

COUNT = click.IntRange(min=1)


class Positive(click.FloatRange):
    """A finite number above 0."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


POSITIVE = Positive()


@click.command(context_settings={"show_default": True})
@click.option("--model", required=True, help=f"Network: {', '.join(NAMES)}.")
@click.option("--variant", default="tiny", help="See `deblur-export models`.")
@click.option("--pool", type=PATH, required=True, help="Pairs that `deblur-export pairs` made.")
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the run.")
@click.option("--steps", type=COUNT, help="Length of the run in steps.")
@click.option("--minutes", type=POSITIVE, help="Length in minutes; the shorter one counts.")
@click.option("--batch", type=COUNT, default=8, help="Crops in a step.")
@click.option("--crop", type=COUNT, default=128, help="Side of the crops in pixels.")
@click.option(
    "--focus", type=click.FloatRange(0, 1), default=0.75, help="Fraction of crops with blur inside."
)
@click.option("--longest", type=POSITIVE, help="Longest motion to train on, in pixels.")
@click.option("--lr", type=POSITIVE, default=1e-3, help="Highest learning rate.")
@click.option("--clip", type=POSITIVE, default=0.01, help="Largest norm of the gradient.")
@click.option(
    "--images", type=click.Choice(["paper", "relative"]), default="paper", help="Image loss."
)
@click.option(
    "--frequency-weight", type=POSITIVE, default=0.1, help="Weight of the frequency loss."
)
@click.option("--mask-weight", type=POSITIVE, default=0.01, help="Weight of M2AENet's mask loss.")
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.999,
    help="Decay of the averaged weights.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--init-from", type=PATH, help="Weights to start from.")
@click.option(
    "--from-nafnet",
    metavar="FILE|demo",
    help="NAFNet weights that algnet, dhnet, aibnet or ufpnet starts with.",
)
@click.option("--frozen-encoder", is_flag=True, help="AIBNet: as in the paper.")
@click.option("--bf16", type=click.Choice(["auto", "on", "off"]), default="auto")
@click.option("--device", default="auto", help="cpu, cuda, cuda:1, ...")
@click.option("--threads", type=COUNT, help="CPU threads.")
@click.option("--val-every", type=COUNT, default=500, help="Steps between validations.")
@click.option("--val-images", type=COUNT, default=32)
@click.option("--save-every", type=POSITIVE, default=180, help="Seconds between state files.")
def train(**options: Any) -> None:
    """Train a network on synthetic pairs (`deblur-export pairs` makes them).

    The output folder gets best.safetensors and last.safetensors (averaged weights in float32 with
    official key names), log.jsonl, and state.pt, from which the same command continues after an
    interruption.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    console = make_console()
    with console.status("loading PyTorch"):
        from deblur_export.models.training import run

        arguments = run.RunArguments(**options)
        trainer = run.make_trainer(arguments)
    stop_on_signals(trainer)
    if not run.train(trainer, console):
        raise DeblurExportError("interrupted; the same command continues from here")
    console.print(f"done: {arguments.output / 'best.safetensors'}")


def stop_on_signals(trainer: Any) -> None:
    """The first Ctrl-C or SIGTERM ends the run after the current step, the second one at once."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        trainer.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
