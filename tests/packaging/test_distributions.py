"""What the wheel and the source distribution hold."""

from __future__ import annotations

import ctypes
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import LINKS, Checkout, build_sdist, build_wheel, run

PACKAGE = "src/deblur_export/"


@pytest.fixture(scope="module")
def wheel(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of an extracted ZIP, without native kernels."""
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(checkout("zip", folder / "tree"), folder / "dist")


@pytest.fixture(scope="module")
def sdist(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a clone without symbolic links, extracted."""
    folder = tmp_path_factory.mktemp("sdist")
    file = build_sdist(checkout("clone", folder / "tree"), folder / "dist")
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    return folder / file.name.removesuffix(".tar.gz")


def package_files(repository: Path) -> set[str]:
    """All files of the package that Git holds, as paths below deblur_export/."""
    names = run("git", "ls-files", cwd=repository).splitlines()
    folders = tuple(f"{folder}/" for folder in LINKS["FOLDERS"])
    inside = {name.removeprefix(PACKAGE) for name in names if name.startswith(PACKAGE)}
    return inside | {name for name in names if name.startswith(folders)}


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_git_holds_no_links(repository: Path) -> None:
    assert "120000 " not in run("git", "ls-files", "--stage", cwd=repository)


def test_wheel_holds_the_package_and_nothing_else(repository: Path, wheel: Path) -> None:
    files = files_of(wheel)
    expected = {f"deblur_export/{name}" for name in package_files(repository)}
    assert {name for name in files if ".dist-info/" not in name} == expected
    assert "deblur_export/py.typed" in files
    assert any(name.endswith("/m2aenet_tiny.safetensors") for name in files)
    assert any(name.endswith(".h") for name in files)
    (licence,) = [name for name in files if name.endswith(".dist-info/licenses/LICENSE")]
    with zipfile.ZipFile(wheel) as archive:
        assert b"Apache License" in archive.read(licence)
        assert b"ShareAlike" in archive.read("deblur_export/models/weights/LICENSE")
        metadata = archive.read(licence.replace("licenses/LICENSE", "METADATA")).decode()
    assert "License-Expression: Apache-2.0 AND CC-BY-SA-4.0\n" in metadata
    assert not [name for name in files if "tests" in name.split("/")]


def test_sdist_holds_the_package_without_tests(repository: Path, sdist: Path) -> None:
    files = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    assert {name.removeprefix(PACKAGE) for name in files if name.startswith(PACKAGE)} == (
        package_files(repository)
    )
    assert {"LICENSE", "README.md", "links.py", "pyproject.toml", "setup.py"} <= files
    assert not [name for name in files if "tests" in name.split("/")]


def test_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert files_of(build_wheel(sdist, tmp_path / "dist")) == files_of(wheel)


def test_what_an_earlier_build_left_is_not_packed(checkout: Checkout, tmp_path: Path) -> None:
    tree = checkout("zip", tmp_path / "tree")
    stale = tree / "build/lib/deblur_export/renamed.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert "deblur_export/renamed.py" not in files_of(build_wheel(tree, tmp_path / "dist"))


@pytest.mark.slow
def test_sdist_builds_native_kernels(sdist: Path, tmp_path: Path) -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("needs a C++ compiler")
    wheel = build_wheel(sdist, tmp_path / "dist", compiler=True)
    assert not wheel.name.endswith("-any.whl")
    (library,) = [name for name in files_of(wheel) if Path(name).name.startswith("libdeblur_cpu.")]
    with zipfile.ZipFile(wheel) as archive:
        assert ctypes.CDLL(archive.extract(library, tmp_path)).deblur_version() > 0
