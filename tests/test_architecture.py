"""Imports go one way and in no circle, stay light, and files stay short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "deblur_export"
GROUND = {
    "errors",
    "shown",
    "telemetry",
    "temporary",
    "child",
    "atomic",
    "image_formats",
    "image_shape",
    "photo_folder",
    "photo_memory",
    "outputs",
    "precision",
    "target",
    "typed_json",
    "engine_record",
    "manifest",
    "manifest_blocks",
    "file_names",
    "onnx_reading",
    "edited_file",
    "artifact",
    "engine_file",
}
# Which parts may import which; each may import itself and the ground floor.
ALLOWED: Mapping[str, set[str]] = {
    "ground": set(),
    "plugins": set(),
    "models": {"plugins"},
    "export": {"plugins", "models"},
    "calibration": {"plugins", "models", "export"},
    "api": {"plugins", "models", "export", "calibration"},
    "commands": {"plugins", "models", "export", "calibration", "api"},
}


def module_files() -> dict[str, Path]:
    """Every file of the package by its dotted name, found without the links of src/."""
    files = {}
    for folder in ("plugins", "models", "export", "calibration"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            files[dotted(file.relative_to(ROOT))] = file
    source = ROOT / "src" / PACKAGE
    for file in sorted(
        [*source.glob("*.py"), *source.glob("api/*.py"), *source.glob("commands/*.py")]
    ):
        files[dotted(file.relative_to(source))] = file
    return files


def dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(file: Path, known: Mapping[str, Path]) -> set[str]:
    """Files of ours that a file imports, wherever the statement stands, under TYPE_CHECKING and
    inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {alias: f"{node.module}.{alias.name}" for alias in node.names}
            names.update(
                full if full.removeprefix(f"{PACKAGE}.") in known else node.module
                for full in whole.values()
            )
    return {name.removeprefix(f"{PACKAGE}.") for name in names} & set(known)


FILES = module_files()


@cache
def imports() -> Mapping[str, set[str]]:
    """The files of ours that each file imports."""
    return {name: imported(file, FILES) - {name} for name, file in FILES.items()}


def part_of(name: str) -> str:
    first = name.split(".")[0]
    if first in GROUND:
        return "ground"
    return first if first in ALLOWED else "commands"  # cli, __main__, __init__


def room_of(name: str) -> str:
    """The part, and inside export the folder or file directly below."""
    part = part_of(name)
    return ".".join(name.split(".")[:2]) if part == "export" else part


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """One circle of a directed graph, in order; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(edges.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in edges if (found := visit(name, []))), [])


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way(name: str) -> None:
    part = part_of(name)
    others = {part_of(other) for other in imports()[name]} - {part, "ground"}
    assert others <= ALLOWED[part]


def test_no_circle_of_files() -> None:
    assert circle(imports()) == []


def test_no_circle_of_rooms() -> None:
    """The folders inside export stand in an order too: none imports one that imports it."""
    rooms: dict[str, set[str]] = {}
    for name, others in imports().items():
        room = room_of(name)
        rooms.setdefault(room, set()).update({room_of(other) for other in others} - {room})
    assert circle(rooms) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize("name", FILES)
def test_files_stay_short(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 400


def test_graphs_cross_between_languages_in_one_file() -> None:
    crossing = re.compile(
        r"ir\.(to_proto|from_proto|load|save)\b|inline_local_functions|onnx\.(load|save)\b|CopyFrom\(model"
    )
    found = {
        name
        for name, file in FILES.items()
        if part_of(name) in ("export", "calibration")
        and crossing.search(file.read_text(encoding="utf-8"))
    }
    assert found == {"export.graph"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, deblur_export, deblur_export.cli\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'rich', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
