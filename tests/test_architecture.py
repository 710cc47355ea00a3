"""Imports go one way, stay light, and files stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "deblur_export"
# Who may import whom; every folder may import itself and `errors`.
ALLOWED = {
    "calibration": set[str](),
    "plugins": set[str](),
    "models": {"plugins"},
    "export": {"plugins", "models", "calibration"},
}
FILES = [file for folder in ALLOWED for file in sorted((ROOT / folder).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """Sub-packages of ours that a file imports, wherever the statement stands."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = (name.split(".") for name in names)
    return {part[1] for part in parts if part[0] == PACKAGE and len(part) > 1}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file: Path) -> None:
    folder = file.relative_to(ROOT).parts[0]
    others = imported(file) & set(ALLOWED) - {folder}
    assert others <= ALLOWED[folder]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, deblur_export.cli\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'rich', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
