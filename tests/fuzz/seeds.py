"""How long hostile input is made: the same seeds in the same order, until the time is over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

# Of each fuzz test: some seconds in .ci/run, an hour for all with `make fuzz`.
SECONDS = float(os.environ.get("DEBLUR_FUZZ_SECONDS", "10"))
FIRST = int(os.environ.get("DEBLUR_FUZZ_FIRST", "0"))
AT_LEAST = 20


def seeds() -> Iterator[int]:
    """FIRST, FIRST + 1, ...: at least 20 of them, then until SECONDS have passed.

    A failing seed is repeated with DEBLUR_FUZZ_FIRST=SEED.
    """
    start, seed = time.monotonic(), FIRST
    while seed < FIRST + AT_LEAST or time.monotonic() - start < SECONDS:
        yield seed
        seed += 1
