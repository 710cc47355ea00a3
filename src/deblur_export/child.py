"""Python processes that end with the one that starts them, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def python(code: str, *arguments: str) -> list[str]:
    """The command that runs code in a process that ends with this one.

    It imports the package first, which turns the telemetry of the runtimes off. The thread that
    starts the command must wait for its end: Linux goes by the thread.
    """
    first = f"from deblur_export.child import end_with\nend_with({os.getpid()})"
    return [sys.executable, "-c", f"{first}\n{code}", *arguments]


def end_with(parent: int) -> None:
    """On Linux, let this process be killed when its parent ends, or end it if that has ended.

    Elsewhere nothing happens: there a process sees the end of its parent at the end of its input.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
