"""Time rows interleaved: each round runs every row once, in a random order."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.timing.process import WorkerProcess

MIN_ROUNDS, MAX_ROUNDS = 3, 25  # if the user does not give a number
SETTLE = 0.01  # seconds until the threads of the previous worker sleep


@dataclass(frozen=True)
class Budget:
    """How long to measure: `repeats` rounds, or as many as fit into `seconds`, but at least
    `MIN_ROUNDS` and at most `MAX_ROUNDS`."""

    seconds: float
    repeats: int | None = None

    def is_spent(self, rounds: int, elapsed: float) -> bool:
        if self.repeats is not None:
            return rounds >= self.repeats
        another = elapsed + elapsed / rounds
        return rounds >= MAX_ROUNDS or (rounds >= MIN_ROUNDS and another > self.seconds)


@dataclass
class Figures:
    """The measurements of one row in one case. Times are in seconds.

    Attributes:
        title: what was run, with versions.
        reason: why it failed, or "".
        notes: notes to the user.
        load_seconds: time to load.
        file_bytes: size of the file.
        first_run: time of the first run, which compiles and allocates; it is not in `runs`.
        runs: times of the other runs.
        peak_bytes: peak memory.
        memory: what the peak memory includes.
        max_difference: largest difference to PyTorch in float32.
        profile: time per run by type of operator.
    """

    title: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    load_seconds: float | None = None
    file_bytes: int | None = None
    first_run: float | None = None
    runs: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    memory: str = ""
    max_difference: float | None = None
    profile: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        return statistics.median(self.runs) if self.runs and not self.reason else None

    def quantile(self, fraction: float) -> float:
        """Quantile of the times of the runs; `fraction` is in 0..1."""
        return float(np.quantile(self.runs, fraction))


Feed = Mapping[str, str]  # .npy files by name of the input


def run_rounds(
    workers: Mapping[Any, WorkerProcess],
    feeds: Mapping[Any, Feed],
    figures: Mapping[Any, Figures],
    budget: Budget,
    progress: Callable[[str], None],
    seed: int = 0,
) -> None:
    """Run interleaved rounds and add their times to `figures`. A worker that fails is left out of
    later rounds.

    Args:
        workers: by row, loaded.
        feeds: inputs by row.
        figures: by row; changed in place.
        budget: how long to measure.
        progress: called with a line of text for each round.
        seed: of the order in each round.
    """
    shuffle = random.Random(seed).shuffle
    alive = [key for key in workers if not figures[key].reason]
    start, rounds = time.perf_counter(), 0
    while alive and (not rounds or not budget.is_spent(rounds, time.perf_counter() - start)):
        progress(f"round {rounds + 1}")
        shuffle(alive)
        for key in tuple(alive):
            time.sleep(SETTLE)
            try:
                reply = workers[key].ask("run", feed=feeds[key])
            except DeblurExportError as error:
                figures[key].reason = str(error)
                alive.remove(key)
                continue
            figures[key].runs.append(reply["seconds"])
            figures[key].peak_bytes = reply["peak_bytes"]
        rounds += 1


def max_difference(image: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Largest absolute difference of two images [1, 3, H, W]; infinite if their shapes differ or a
    value is not finite."""
    if image.shape != reference.shape:
        return float("inf")
    largest = float(np.abs(image.astype(np.float64) - reference).max())
    return largest if np.isfinite(largest) else float("inf")
