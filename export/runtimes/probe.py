"""Trials of the installed libraries, each in its own process: some of them abort without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from importlib import metadata

from deblur_export import child

SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`. `works` is the result of a trial on this machine. `runs` names the
    backend that can run files if it works, `builds` the builder that can build engines."""

    name: str
    version: str
    works: bool
    note: str
    runs: str = ""
    builds: str = ""


def installed(package: str) -> str:
    """The version of a Python distribution; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def version_tuple(version: str) -> tuple[int, ...]:
    """ "10.3.0.26" -> (10, 3, 0, 26)."""
    return tuple(map(int, re.findall(r"\d+", version)))


def trial(code: str, *arguments: str) -> tuple[bool, list[str]]:
    """Run Python code in a process.

    Returns:
        Whether it ended without an error, and the lines that it printed; after an error the lines
        of the error, at least one.
    """
    try:
        result = subprocess.run(
            child.python(code, *arguments),
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            env=os.environ | {"PYTHONIOENCODING": "utf-8:backslashreplace"},
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, [f"did not answer within {SECONDS} s"]
    if result.returncode == 0:
        return True, result.stdout.strip().splitlines()
    return False, (result.stderr or result.stdout).strip().splitlines() or ["it crashed"]


def try_package(package: str, code: str, install: str, runs: str = "", builds: str = "") -> Finding:
    """Try a Python distribution; `install` is what the user passes to pip to install it. The note
    is the last line that `code` prints, if any, or why it failed."""
    version = installed(package)
    if not version:
        return Finding(package, "-", False, f"not installed; pip install '{install}'")
    works, lines = trial(code)
    note = lines[-1] if lines else ""
    note = note if works else f"installed, but: {note}"
    return Finding(package, version, works, note, runs, builds)
