"""The peak memory of this process, if possible of one stretch of its life."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
SINCE_RESET = "highest resident memory of the process while it ran, loading left out"
SINCE_START = "highest resident memory of the process since it started (ru_maxrss)"


def reset_peak() -> bool:
    """Forget the peak so far; False where the system cannot."""
    try:
        CLEAR.write_text("5", encoding="utf-8")
    except OSError:
        return False
    return _high_water() is not None


def peak_bytes(was_reset: bool) -> int | None:
    """Since the last `reset_peak` where that worked, else since the process started; None on
    Windows, whose Python does not tell."""
    water = _high_water() if was_reset else None
    if water is not None:
        return water
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
