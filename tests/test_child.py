"""A process that ours starts does not outlive it, even if it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deblur_export import child

# A parent of a child that computes without giving a second thread of its own a chance.
PARENT = """
import subprocess, sys
from deblur_export import child
code = "import ctypes; print(flush=True); ctypes.PyDLL(None).sleep(30)"
process = subprocess.Popen(child.python(code), stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
process.wait()
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child at once")


@linux
def test_a_child_ends_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    own = Path("/proc") / parent.stdout.readline().decode().strip()
    assert b"deblur_export.child" in (own / "cmdline").read_bytes()
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 10
    while is_running(own):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: Path) -> bool:
    """A zombie, which waits for its new parent to ask for its exit code, is not."""
    try:
        return "State:\tZ" not in (process / "status").read_text(encoding="utf-8")
    except OSError:
        return False


@linux
def test_a_child_whose_parent_has_ended_does_not_begin() -> None:
    code = f"from deblur_export.child import end_with; end_with({os.getpid() + 1}); print('ran')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_arguments_arrive() -> None:
    done = subprocess.run(
        child.python("import sys; print(sys.argv[1:])", "a b", "c"),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == "['a b', 'c']\n"
