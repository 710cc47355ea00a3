"""links.py makes the package's links, and only those that are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.packaging.conftest import LINKS, ROOT

FOLDERS: tuple[str, ...] = LINKS["FOLDERS"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree whose folders hold one file each, without links."""
    (tmp_path / "src/deblur_export").mkdir(parents=True)
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    return tmp_path


def links_of(tree: Path) -> list[Path]:
    return [tree / "src/deblur_export" / name for name in FOLDERS]


def hold(tree: Path) -> bool:
    """Whether every link leads to its folder."""
    return all(link.samefile(tree / link.name) for link in links_of(tree))


def test_missing_links_are_made_and_then_left_alone(tree: Path) -> None:
    LINKS["make_links"](tree)
    assert hold(tree)
    before = [link.lstat() for link in links_of(tree)]
    LINKS["make_links"](tree)
    assert [link.lstat() for link in links_of(tree)] == before


def test_links_hold_when_the_tree_moves(tree: Path) -> None:
    LINKS["make_links"](tree)
    moved = tree.rename(tree.with_name("moved"))
    assert hold(moved)


def test_what_git_writes_in_place_of_a_link_is_replaced(tree: Path) -> None:
    text, nowhere, *_ = links_of(tree)
    text.write_text(f"../../{text.name}", encoding="utf-8")
    nowhere.symlink_to("../elsewhere")
    LINKS["make_links"](tree)
    assert hold(tree)


def test_folders_of_a_source_distribution_stay(tree: Path) -> None:
    for link in links_of(tree):
        (tree / link.name).rename(link)
    LINKS["make_links"](tree)
    assert all((link / "__init__.py").is_file() for link in links_of(tree))


def test_another_file_in_the_place_of_a_link_is_refused_and_kept(tree: Path) -> None:
    mine = links_of(tree)[0]
    mine.write_text("my notes", encoding="utf-8")
    with pytest.raises(LINKS["LinkError"], match="is a file in the place of a link"):
        LINKS["make_links"](tree)
    assert mine.read_text(encoding="utf-8") == "my notes"


def test_a_link_to_another_tree_is_refused(tree: Path) -> None:
    (tree / "other").mkdir()
    links_of(tree)[0].symlink_to(tree / "other")
    with pytest.raises(LINKS["LinkError"], match="does not lead to"):
        LINKS["make_links"](tree)


def test_a_missing_folder_is_named(tree: Path) -> None:
    (tree / FOLDERS[0] / "__init__.py").unlink()
    (tree / FOLDERS[0]).rmdir()
    with pytest.raises(LINKS["LinkError"], match=f"{FOLDERS[0]} is missing"):
        LINKS["make_links"](tree)


def test_a_refused_link_is_one_line_and_exit_code_2(tree: Path) -> None:
    (tree / "links.py").write_text(
        (ROOT / "links.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tree / "src/deblur_export").rmdir()
    command = [sys.executable, str(tree / "links.py")]
    result = subprocess.run(command, capture_output=True, encoding="locale", check=False)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: cannot link") and "No such file" in line


def test_windows_gets_junctions(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Windows' call, which takes two absolute paths: the folder and the link."""

    def junction(folder: str, link: str) -> None:
        assert Path(folder).is_absolute() and Path(link).is_absolute()
        Path(link).symlink_to(folder)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "_winapi", SimpleNamespace(CreateJunction=junction))
    LINKS["make_links"](tree)
    assert hold(tree)
