"""Figures in README and docs/ are those that the scripts of bench/ print."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow


def bench(script: str, root: Path = ROOT) -> str:
    """Standard output of a script of bench/."""
    done = subprocess.run(
        [sys.executable, str(root / "bench" / script)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_networks_page_has_what_published_prints() -> None:
    page = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
    printed = [line for line in bench("published.py").splitlines() if line.startswith("|")]
    assert "\n".join(printed[:3]) in page
    assert [line for line in printed if line not in page.splitlines()] == []


def test_tables_are_those_of_the_measured_files(tmp_path: Path) -> None:
    """bench/tables.py finds nothing to change in the pages that it writes."""
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__*"))
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    bench("tables.py", tmp_path)
    for name in ("bench/README.md", "docs/precision.md", "docs/training.md"):
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert written == (ROOT / name).read_text(encoding="utf-8"), name


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__*"))
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    page = tmp_path / "docs/precision.md"
    page.write_text(page.read_text(encoding="utf-8").replace("dB", "dBm"), encoding="utf-8")
    bench("tables.py", tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "dBm" not in text.split("<!-- matrix of precisions")[1].split("<!-- end")[0]
