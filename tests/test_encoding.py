"""Text files and pipes name their encoding: it would depend on the system, and be wrong on some."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("src/deblur_export", "plugins", "models", "export", "calibration", "bench", "tests")
TEXT = {"read_text", "write_text"}
FILES = {"open", "fdopen", "TemporaryFile", "NamedTemporaryFile", "FileHandler"}
OTHER = {"Image.open", "os.open", "tarfile.open"}  # no text


def python_files() -> list[Path]:
    below = [file for name in FOLDERS for file in sorted((ROOT / name).rglob("*.py"))]
    return [*sorted(ROOT.glob("*.py")), *below]


def opens_binary(call: ast.Call) -> bool:
    """Whether a literal argument is a mode with a b."""
    values = [*call.args, *(word.value for word in call.keywords)]
    modes = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return any(len(mode) <= 3 and "b" in mode for mode in modes)


def opens_other(call: ast.Call) -> bool:
    """Whether this is the method `open` of something else than a path, whose first argument would
    be a mode."""
    mode = call.args[0] if call.args else ast.Constant("r")
    is_method = isinstance(call.func, ast.Attribute) and call.func.attr == "open"
    return is_method and not (isinstance(mode, ast.Constant) and isinstance(mode.value, str))


@cache
def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def unspecified(source: str) -> Iterator[str]:
    """Calls that open text and name no encoding, as `line: code`."""
    for node in calls(source):
        words = {word.arg for word in node.keywords}
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        is_file = name in FILES and called not in OTHER and not opens_other(node)
        opens = name in TEXT or (is_file and not opens_binary(node))
        if (opens or words & {"text", "universal_newlines"}) and "encoding" not in words:
            yield f"{node.lineno}: {ast.unparse(node)}"


def strict_locale(source: str) -> Iterator[str]:
    """Calls that decode as the system does and stop at a byte that it does not know."""
    for node in calls(source):
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if words.get("encoding") == "'locale'" and "errors" not in words:
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_no_message_of_a_tool_stops_the_package() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{call}"
        for file in python_files()
        if file.relative_to(ROOT).parts[0] != "tests"
        for call in strict_locale(file.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_what_is_strict() -> None:
    assert list(strict_locale("run(a, encoding='locale')"))
    assert not list(strict_locale("run(a, encoding='locale', errors='replace')"))
    assert not list(strict_locale("run(a, encoding='utf-8')"))


def test_every_text_file_and_pipe_names_its_encoding() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{call}"
        for file in python_files()
        for call in unspecified(file.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("path.read_text()", True),
        ("self.log.read_text(errors='replace')", True),
        ("open('b.txt')", True),
        ("path.open('w')", True),
        ("subprocess.run(command, text=True)", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("open(path, mode='wb')", False),
        ("Image.open(path)", False),
        ("graph.open(names)", False),
        ("path.open()", True),
        ("subprocess.run(command, encoding='locale')", False),
    ],
)
def test_what_is_refused(code: str, refused: bool) -> None:
    assert bool(list(unspecified(code))) == refused
