"""Installs from sources without symbolic links: a clone of Git for Windows, an extracted ZIP."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.packaging.conftest import Checkout, run

pytestmark = pytest.mark.slow


def fresh_environment(folder: Path) -> Path:
    """The Python of a new virtual environment that sees the packages of this one."""
    venv.create(folder, with_pip=False)
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(site) / "packages.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@pytest.mark.parametrize("editable", [False, True], ids=["plain", "editable"])
@pytest.mark.parametrize("kind", ["clone", "zip"])
def test_install(checkout: Checkout, tmp_path: Path, kind: str, editable: bool) -> None:
    tree = checkout(kind, tmp_path / "tree")
    python = fresh_environment(tmp_path / "environment")
    # The package that this environment has is outside of the new one, and stays.
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed")
    install = (*options, *(["-e"] if editable else []), tree)
    run(sys.executable, "-m", "pip", "--python", python, "install", *install, cwd=tmp_path)
    code = "import deblur_export.export.pipeline as module; print(module.__file__)"
    file = Path(run(python, "-c", code, cwd=tmp_path).strip())
    assert file.is_relative_to(tree if editable else python.parents[1])
