"""The walks of CONTRIBUTING.md name the files that there are, few enough, and no others.

Each walk follows one example through the tree. Its list is the files that a new one touches; a file
that names the example without being in the list must be in the walk's last paragraph, which says
why it need not change.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Page

FOLDERS = ("src/deblur_export", "plugins", "models", "export", "calibration")
LINKED = {f"src/deblur_export/{name}" for name in ("plugins", "models", "export", "calibration")}
ITEM = re.compile(r"^- `(?P<path>[^`]+)`", re.MULTILINE)
NAMED = re.compile(r"`(?P<path>[\w.-]+(?:/[\w.-]+)*/?)`")


@dataclass(frozen=True)
class Walk:
    """A section: its heading, how many files it may list, and how the example is spelled in code
    (a regular expression of whole words)."""

    heading: str
    most: int
    example: str

    @property
    def text(self) -> str:
        text = Page(ROOT / "CONTRIBUTING.md").text
        (section,) = re.findall(
            rf"^### {re.escape(self.heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL
        )
        return str(section)

    @property
    def listed(self) -> list[str]:
        return ITEM.findall(self.text)

    @property
    def named(self) -> set[str]:
        """All paths in the section, also those that are not counted."""
        found = {match["path"] for match in NAMED.finditer(self.text)}
        return {path for path in found if "/" in path or path == "pyproject.toml"}

    def covers(self, file: str) -> bool:
        return any(
            file == path or (path.endswith("/") and file.startswith(path)) for path in self.named
        )


WALKS = (
    Walk("A network", 2, r"saphn\w*|SAPHN\w*"),
    Walk("A backend", 4, r"openvino"),
    Walk("An op", 8, r"\w*dynamic_filter\w*|DynamicFilter\w*"),
    Walk("A precision", 8, r"\S*(bf16|BF16|bfloat16|BFLOAT16)\S*"),
    Walk("An image format", 1, r"\.?webp|WEBP"),
)
every_walk = pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.heading)


def code_files() -> Iterator[Path]:
    """The files of the package and its build, without demo weights."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT).as_posix()
            if any(inside.startswith(f"{linked}/") for linked in LINKED):
                continue
            if path.suffix in {".py", ".cpp", ".h", ".cu", ".cuh", ".txt"}:
                yield path


def words_of_python(source: str) -> Iterator[str]:
    """Names and texts of Python code, without comments and docstrings."""
    tree = ast.parse(source)
    lone = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    documentation = {id(value) for value in lone if isinstance(value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")
        elif isinstance(node, ast.keyword | ast.arg):
            yield node.arg or ""
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Constant) and id(node) not in documentation:
            yield from (word for word in [node.value] if isinstance(word, str) and " " not in word)


@cache
def words_of(file: Path) -> frozenset[str]:
    """What code says in one word: sentences for people are not code."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return frozenset(words_of_python(text))
    without_comments = re.sub(r"//[^\n]*|/\*.*?\*/|^\s*#(?!\w)[^\n]*", "", text, flags=re.S | re.M)
    return frozenset(re.findall(r"[\w.]+", without_comments))


@every_walk
def test_listed_files_exist(walk: Walk) -> None:
    assert [path for path in walk.named if not (ROOT / path).exists()] == []


@every_walk
def test_few_files(walk: Walk) -> None:
    assert 1 <= len(walk.listed) <= walk.most
    assert len(set(walk.listed)) == len(walk.listed)


@every_walk
def test_example_occurs_in_no_other_file(walk: Walk) -> None:
    example = re.compile(walk.example)
    naming = {
        file.relative_to(ROOT).as_posix()
        for file in code_files()
        if any(example.fullmatch(word) for word in words_of(file))
    }
    assert {file for file in naming if not walk.covers(file)} == set()


@every_walk
def test_example_occurs_in_the_list(walk: Walk) -> None:
    """A file that does not name the example has no place in its walk."""
    example = re.compile(walk.example)
    for path in walk.listed:
        files = [ROOT / path] if (ROOT / path).is_file() else sorted((ROOT / path).rglob("*.*"))
        texts = (file.read_text(encoding="utf-8") for file in files)
        named = any(example.search(text) or example.search(path) for text in texts)
        assert named, path


def test_words_of_python() -> None:
    source = '"""openvino"""\nimport a.openvino as b  # x\nf(c="d", e="say openvino")\n'
    assert {"openvino", "c", "d", "f"} <= set(words_of_python(source))
    assert "say openvino" not in set(words_of_python(source))
    assert "openvino" not in set(words_of_python('"""openvino"""\n# openvino\nx = 1\n'))
