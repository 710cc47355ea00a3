"""Which hostile input is made: the same seeds in the same order, until the time is over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

# Of each fuzz test. With 0, as in .ci/run, the seeds are the same on every machine; `make fuzz`
# goes on for an hour in all.
SECONDS = float(os.environ.get("DEBLUR_FUZZ_SECONDS", "0"))
FIRST = int(os.environ.get("DEBLUR_FUZZ_FIRST", "0"))
AT_LEAST = 40


def seeds() -> Iterator[int]:
    """FIRST, FIRST + 1, ...: at least 40 of them, then until SECONDS have passed.

    A failing seed is repeated with DEBLUR_FUZZ_FIRST=SEED.
    """
    start, seed = time.monotonic(), FIRST
    while seed < FIRST + AT_LEAST or time.monotonic() - start < SECONDS:
        yield seed
        seed += 1
