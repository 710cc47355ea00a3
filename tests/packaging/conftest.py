"""Checkouts of the working tree as users get them, and what is built from them."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKS = runpy.run_path(str(ROOT / "links.py"))


def environment(compiler: bool) -> dict[str, str]:
    """Variables for pip: nothing of the tree under test, and a C++ compiler only if wanted."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept if compiler else kept | {"CXX": "no-compiler"}


def run(*command: object, cwd: Path, compiler: bool = False) -> str:
    """Standard output of a command that must succeed."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(compiler),
        capture_output=True,
        encoding="locale",
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git repository with one commit: the working tree, with what is not committed yet."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="locale", check=False)
    if listed.returncode:  # an extracted ZIP, or a checkout of somebody else's
        pytest.skip(f"needs a Git checkout: {listed.stderr.strip()}")
    folder = tmp_path_factory.mktemp("repository")
    for name in filter(None, listed.stdout.split("\0")):
        if not (ROOT / name).is_file():  # removed, and not committed yet
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", *identity, "commit", "--quiet", "-m", "tree", cwd=folder)
    return folder


Checkout = Callable[[str, Path], Path]


@pytest.fixture(scope="session")
def checkout(repository: Path) -> Checkout:
    """checkout("clone" or "zip", folder): the sources in a new `folder`, without symbolic links."""

    def check_out(kind: str, folder: Path) -> Path:
        if kind == "clone":
            options = ("--quiet", "-c", "core.symlinks=false")
            run("git", "clone", *options, repository, folder, cwd=repository)
        else:
            file = folder.with_suffix(".zip")
            run("git", "archive", "--format=zip", f"--output={file}", "HEAD", cwd=repository)
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
        return folder

    return check_out


def build_wheel(tree: Path, target: Path, compiler: bool = False) -> Path:
    """The wheel of a source tree."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target)
    run(sys.executable, "-m", "pip", "wheel", *options, tree, cwd=target.parent, compiler=compiler)
    (wheel,) = target.glob("*.whl")
    return wheel


def build_sdist(tree: Path, target: Path) -> Path:
    """The source distribution of a source tree."""
    target.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(target)!r})"
    run(sys.executable, "-c", code, cwd=tree)
    (sdist,) = target.glob("*.tar.gz")
    return sdist
