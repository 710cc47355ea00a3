"""Options that several verbs have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deblur_export.export.runtimes.registry import ENTRIES
from deblur_export.precision import GRAPH_PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from deblur_export.models.checkpoint import LoadedModel

RUNTIMES = ("auto", *ENTRIES)
# Former spellings, which are refused with today's.
FORMER = {"f32": "fp32", "f16": "fp16"}
PATH = click.Path(path_type=Path)
plugins_option = click.option(
    "--plugins", type=PATH, multiple=True, help="Plugin library that an engine was built with."
)
ema_option = click.option(
    "--ema/--no-ema",
    default=None,
    help="Weights of a checkpoint that are averaged over the training, or the others.  "
    "[default: the others where both are there]",
)


class PrecisionType(click.Choice):  # type: ignore[type-arg]
    """One of several precisions; for a former spelling the error names today's."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value in FORMER:
            raise click.UsageError(f"--precision {value} is spelled {FORMER[value]}", ctx)
        return super().convert(value, param, ctx)


precision_option = click.option(
    "--precision",
    type=PrecisionType(GRAPH_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Arithmetic of OpenVINO; ONNX Runtime computes in the precision of the graph.",
)


def loaded_lines(loaded: LoadedModel, weights: str | None) -> Iterator[str]:
    """What is to be said of a network that was loaded: weights that nobody named, and what was
    chosen of a checkpoint."""
    if weights is None:
        meaning = {
            "demo": "",
            "own": ", those that the callable gives",
        }.get(loaded.weights, ", so the result will not deblur")
        yield f"no --weights: using {loaded.weights}{meaning}"
    yield from (f"note: {note}" for note in loaded.notes)


def make_console() -> Console:
    """The console on which a verb prints."""
    from deblur_export.commands import console

    return console.make_console()


def steps(console: Console, first: str) -> AbstractContextManager[Callable[[str], None]]:
    """Show the steps of long work, see `console.steps`."""
    from deblur_export.commands.console import steps

    return steps(console, first)
