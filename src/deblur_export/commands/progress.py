"""Shows the phases of an engine build: progress bars in a terminal, lines in a log."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from deblur_export.commands.console import StepLines


class PhaseBars:
    """A `nvinfer.Listener` that shows the current phases, each indented below its parent. It is a
    context manager; nothing stays on the screen."""

    def __init__(self, console: Console) -> None:
        description = TextColumn("{task.description}", markup=False)
        columns = (description, BarColumn(), MofNCompleteColumn())
        hidden = not console.is_terminal
        self.progress = Progress(*columns, console=console, transient=True, disable=hidden)
        self.lines = StepLines(console) if hidden else None
        self.tasks: dict[str, TaskID] = {}
        self.depth: dict[str, int] = {}

    def __enter__(self) -> PhaseBars:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()
        if self.lines is not None:
            self.lines.end()

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        if self.lines is not None:
            self.lines.begin(phase)
        self.depth[phase] = depth = self.depth.get(parent, -1) + 1 if parent else 0
        self.tasks[phase] = self.progress.add_task("  " * depth + phase, total=steps)

    def step(self, phase: str, step: int) -> None:
        if phase in self.tasks:
            self.progress.update(self.tasks[phase], completed=step)

    def finish(self, phase: str) -> None:
        if phase in self.tasks:
            self.progress.remove_task(self.tasks.pop(phase))
