"""Virtual environments with old releases of other packages, from the package index."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deblur_export.export.runtimes.probe import version_tuple


def pip(*arguments: str, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def available(package: str) -> list[str]:
    """The releases that this Python can install, the oldest first; the test that asks is skipped
    where no index tells them."""
    found = re.search(r"Available versions: (.*)", pip("index", "versions", package).stdout)
    if found is None:
        pytest.skip(f"no package index tells the releases of {package}")
    return sorted(found.group(1).split(", "), key=version_tuple)


def first_from(package: str, release: str) -> str:
    """The oldest version of a package that is not older than a release and can be installed."""
    wanted = version_tuple(release)
    found = [version for version in available(package) if version_tuple(version) >= wanted]
    if not found:
        pytest.skip(f"no {package} from {release} on can be installed")
    return found[0]


def environment(folder: Path, *requirements: str) -> Path:
    """The Python of a new environment with these packages; the test that asks is skipped where
    they cannot be installed."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    made = pip("install", "-q", *requirements, python=python)
    if made.returncode:
        pytest.skip(f"cannot install {' '.join(requirements)}: {made.stderr.strip()[-200:]}")
    return python


def run(python: Path, *arguments: object, folder: Path) -> str:
    """Standard output of a call of Python that must succeed."""
    ran = subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout
