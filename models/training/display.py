"""Show the progress of a training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 60.0  # seconds between two plain lines
SMOOTHING = 0.98


class Display:
    """Shows the loss, the steps per second and the remaining time; use as a context manager."""

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self.loss: float | None = None
        self.first: tuple[int, float] | None = None
        self.printed = time.monotonic()
        bar = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
        self.bar = Progress(*bar, console=console, disable=not console.is_terminal, transient=True)
        self.task = self.bar.add_task(title, total=1.0)

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def step(self, number: int, progress: float, loss: float) -> None:
        """Show a completed step. `progress` is the completed fraction of the run, 0 to 1."""
        now = time.monotonic()
        self.first = self.first or (number - 1, now)
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        speed = (number - self.first[0]) / max(now - self.first[1], 1e-9)
        text = f"{self.title} step {number}, loss {self.loss:.4f}, {speed:.2f} steps/s"
        self.bar.update(self.task, completed=progress, description=text)
        if not self.console.is_terminal and now - self.printed > EVERY:
            self.printed = now
            self.say(f"{text}, {progress:.1%}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def summary(scores: Mapping[str, float]) -> str:
    """Format PSNR and its gain over the input, over the image and inside the mask, as text."""
    parts = []
    for name, label in (("psnr", "PSNR"), ("psnr_w", "PSNR_w"), ("psnr_sharp", "sharp")):
        if name in scores:
            gain = scores[name] - scores[f"blurred_{name}"]
            parts.append(f"{label} {scores[name]:.2f} dB ({gain:+.2f})")
    if "mask_iou" in scores:
        parts.append(f"mask IoU {scores['mask_iou']:.3f}")
    return ", ".join(parts)
