"""Measure the peak memory of this process, if possible since a given moment."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
SINCE_RESET = "peak resident memory of the process while it ran, without loading"
SINCE_START = "peak resident memory of the process since it started (ru_maxrss)"


def reset_peak() -> bool:
    """Reset the peak; returns False if the system does not support this."""
    try:
        CLEAR.write_text("5", encoding="utf-8")
    except OSError:
        return False
    return _high_water() is not None


def peak_bytes(was_reset: bool) -> int | None:
    """Peak memory in bytes since `reset_peak`, or since the start of the process if that failed;
    None on Windows, where Python cannot measure it."""
    peak = _high_water() if was_reset else None
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _high_water() -> int | None:
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
