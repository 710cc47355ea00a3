"""What was skipped is summed up in one line that says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import needs

SUITE = """
import pytest

from tests import needs

MISSING = needs.Need("a colour press", "pip install 'press[colour]'", "no_such_module")


@MISSING.mark(MISSING.installed())
@pytest.mark.parametrize("page", range(3))
def test_page(page):
    raise AssertionError


def test_cover():
    MISSING.load()


@pytest.mark.skipif(True, reason="nothing can be installed for this")
def test_moon():
    raise AssertionError


def test_there():
    assert needs.Need("Python", "", "sys").load().version
"""


def test_the_end_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    root = Path(__file__).parent.parent
    path = os.pathsep.join([str(root), *map(os.path.abspath, sys.path)])
    options = ("-q", "-n", "1", "-p", "tests.conftest", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        encoding="locale",
        check=False,
    )
    assert "1 passed, 5 skipped" in done.stdout, done.stdout + done.stderr
    line = "skipped tests: 4 for lack of a colour press (pip install 'press[colour]')"
    assert line in done.stdout.splitlines()


def test_most_wanted_first() -> None:
    reasons = [needs.NVCC.reason, *2 * [needs.COMPILER.reason], "no CUDA device"]
    assert needs.summary(reasons) == (
        "skipped tests: 2 for lack of a C++ compiler (install g++ or clang++), "
        "1 for lack of nvcc (install the CUDA toolkit)"
    )
    assert needs.summary(["no CUDA device"]) == ""
