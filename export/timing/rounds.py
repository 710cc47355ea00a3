"""Time the peers in turns: each round runs every peer once, in an order of its own."""

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

LEAST, MOST = 3, 25  # rounds, where the user does not say
SETTLE = 0.01  # seconds; until the threads of the peer before sleep


@dataclass(frozen=True)
class Budget:
    """How long to go on: `repeats` rounds, or as many as fit into `seconds` (`LEAST` to `MOST`)."""

    seconds: float
    repeats: int | None = None

    def is_spent(self, rounds: int, elapsed: float) -> bool:
        if self.repeats is not None:
            return rounds >= self.repeats
        another = elapsed + elapsed / rounds
        return rounds >= MOST or (rounds >= LEAST and another > self.seconds)


@dataclass
class Figures:
    """What was measured of one peer in one case; `reason` instead where it failed.

    Seconds; `first_run` compiles and allocates and is in no median. `max_difference` is to PyTorch
    in float32. `profile` gives seconds a run by type of operator.
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

    def quantile(self, share: float) -> float:
        """Of the runs; `share` in 0..1."""
        return float(np.quantile(self.runs, share))


Feed = Mapping[str, str]  # names of inputs to .npy files


def take_turns(
    workers: Mapping[Any, WorkerProcess],
    feeds: Mapping[Any, Feed],
    figures: Mapping[Any, Figures],
    budget: Budget,
    progress: Callable[[str], None],
    seed: int = 0,
) -> None:
    """Run the rounds and write them into `figures`; a peer that fails is left out from there on."""
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
    """Of two images [1, 3, H, W]; infinite where the shapes differ or a value is not finite."""
    if image.shape != reference.shape:
        return float("inf")
    largest = float(np.abs(image.astype(np.float64) - reference).max())
    return largest if np.isfinite(largest) else float("inf")
