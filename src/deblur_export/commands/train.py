"""`deblur-export train`."""

from __future__ import annotations

import math
import os
import signal
import warnings
from typing import Any

import click

from deblur_export.commands.common import PATH, make_console, steps
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
@click.option("--dataset", type=PATH, required=True, help="Dataset made by `deblur-export pairs`.")
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the run.")
@click.option("--steps", type=COUNT, help="Number of training steps.")
@click.option(
    "--minutes", type=POSITIVE, help="Training time in minutes; the run ends at the first limit."
)
@click.option("--batch", type=COUNT, default=8, help="Batch size in crops.")
@click.option("--crop", type=COUNT, default=128, help="Side of the crops in pixels.")
@click.option(
    "--focus",
    type=click.FloatRange(0, 1),
    default=0.75,
    help="Fraction of crops placed so that they contain blur.",
)
@click.option("--longest", type=POSITIVE, help="Leave out pairs with longer motion, in pixels.")
@click.option("--lr", type=POSITIVE, default=1e-3, help="Peak learning rate.")
@click.option("--clip", type=POSITIVE, default=0.01, help="Gradients are clipped to this norm.")
@click.option(
    "--images",
    type=click.Choice(["psnr", "l1-ssim", "charbonnier", "relative"]),
    show_default="psnr for nafnet, l1-ssim for m2aenet, charbonnier for the others",
    help="Image loss.",
)
@click.option(
    "--frequency-weight",
    type=POSITIVE,
    default=0.1,
    help="Weight of the frequency loss, a part of l1-ssim and charbonnier.",
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
    help="NAFNet weights from which algnet, dhnet, aibnet or ufpnet is initialised.",
)
@click.option(
    "--init-ema/--no-init-ema",
    default=None,
    help="Of --init-from or --from-nafnet: the averaged weights of the file, or the others.",
)
@click.option("--frozen-encoder", is_flag=True, help="AIBNet: do not train the encoder (paper).")
@click.option("--bf16", type=click.Choice(["auto", "on", "off"]), default="auto")
@click.option("--device", default="auto", help="cpu, cuda, cuda:1, ...")
@click.option("--threads", type=COUNT, help="CPU threads.")
@click.option("--val-every", type=COUNT, default=500, help="Steps between validations.")
@click.option("--val-images", type=COUNT, default=32)
@click.option("--save-every", type=POSITIVE, default=180, help="Seconds between state files.")
def train(**options: Any) -> None:
    """Train a network on a dataset of synthetic pairs, made by `deblur-export pairs`.

    The output folder receives best.safetensors and last.safetensors (averaged float32 weights under
    the official key names), log.jsonl, and state.pt, from which the same command continues after
    an interruption.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    console = make_console()
    with steps(console, "loading PyTorch"):
        from deblur_export.models.training import run

        arguments = run.RunArguments(**options)
        trainer = run.make_trainer(arguments, console.print)
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
