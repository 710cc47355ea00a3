"""The console on which the verbs print, and the steps of long work.

Whatever comes from a file, its name included, is printed here by hostile names too: no character
commands the terminal, and nothing is taken for markup.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from deblur_export.shown import escaped, shown

STEP = 200  # characters of a step
# Seconds: where there is no terminal, a step is printed if it lasts that long, or after that much
# silence.
LASTING, SILENCE = 2.0, 10.0


class SafeConsole(Console):
    """Prints every control character of a text as an escape, see `shown`; escape sequences are
    rich's own alone."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_safe(text), **options)  # before its width is measured

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(_safe(segment.text), segment.style)


def _safe(text: str) -> str:
    return "\n".join(map(escaped, text.split("\n")))


def make_console(**options: Any) -> Console:
    """The console on which a verb prints. Options are those of rich's Console."""
    # File names may hold brackets; nothing printed here is markup.
    return SafeConsole(soft_wrap=True, markup=False, emoji=False, **options)


@contextlib.contextmanager
def steps(console: Console, first: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, from `first` on: the value is called with each further step.

    In a terminal it stands beside a spinner. Elsewhere, in a log, a step that lasts is a line with
    the seconds since the beginning; of many short ones there is a line every few seconds.
    """
    if console.is_terminal:
        with console.status(Text(shown(first, STEP))) as status:
            yield lambda step: status.update(Text(shown(step, STEP)))
        return
    lines = StepLines(console)
    try:
        lines.begin(first)
        yield lines.begin
    finally:
        lines.end()


@contextlib.contextmanager
def counted(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many of `total` equal steps are done: the value is called after each."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn())
        further = (MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, *further, console=console, transient=True) as progress:
            bar = progress.add_task(shown(what, STEP), total=total)
            yield lambda: progress.advance(bar)
        return
    done = itertools.count(1)
    with steps(console, what) as tell:
        yield lambda: tell(f"{what}: {next(done)} of {total}")


class StepLines:
    """Steps as lines, for a log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = self.printed = time.monotonic()
        self.timer: threading.Timer | None = None

    def begin(self, step: str) -> None:
        self.end()
        now = time.monotonic()
        if now - self.printed >= SILENCE:
            self.say(step, now)
            return
        self.timer = threading.Timer(LASTING, self.say, (step, now))
        self.timer.daemon = True
        self.timer.start()

    def end(self) -> None:
        """No line for the current step, if it has none yet."""
        if self.timer is not None:
            self.timer.cancel()

    def say(self, step: str, begun: float) -> None:
        self.printed = time.monotonic()
        self.console.print(f"[{begun - self.start:6.1f} s] {shown(step, STEP)}")
