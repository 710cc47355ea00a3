"""`doctor FILE` and `onnx --inline` say which clients load a file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deblur_export.artifact import Artifact
from deblur_export.commands.loading import loading_lines
from deblur_export.export.graph import inlined_path
from deblur_export.export.inline import inlined_file
from deblur_export.export.runtimes import loading
from tests import needs
from tests.conftest import Exported

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Artifact:
    """A file with custom ops in a folder of its own."""
    source = exported("m2aenet")
    path = tmp_path / "net.onnx"
    path.write_bytes(source.path.read_bytes())
    return Artifact(path, source.manifest)


def test_a_client_that_refuses_says_why_in_one_printable_line(
    copy: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(code: str, *arguments: str) -> tuple[bool, list[str]]:
        return False, ["Traceback", f"{copy.path}: too \x1b[2J old", ""]

    monkeypatch.setattr(loading, "trial", refuse)
    (first, *rest) = loading_lines(copy.path)
    assert first.startswith("  ONNX Runtime ")
    assert first.endswith(": does not load: too \\x1b[2J old")
    stock = [line for line in rest if "stock OpenVINO" in line]
    assert len(stock) == needs.OPENVINO.installed()
    assert all("onnx --inline writes a file" in line for line in stock)
    inlined_path(copy.path).touch()
    stock = [line for line in loading_lines(copy.path) if "stock OpenVINO" in line]
    assert all(f"take {inlined_path(copy.path)}" in line for line in stock)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("lost.onnx", None, "no such file"), ("text.onnx", b"text", "not an ONNX file")],
)
def test_what_cannot_be_tried_is_refused(
    command: Command, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = command("doctor", name, cwd=tmp_path)
    assert result.returncode == 2
    assert f"error: {name}: {message}" in result.stderr


@pytest.mark.matrix
def test_every_installed_client_is_tried(copy: Artifact) -> None:
    """Each in a process of its own, which takes seconds."""
    needs.OPENVINO.require()
    inlined_file(copy, inlined_path(copy.path))
    loads = {line.split()[0]: line for line in loading_lines(copy.path)}
    assert loads["ONNX"].endswith(": loads")
    assert "does not load" in loads["stock"]
    assert str(inlined_path(copy.path)) in loads["stock"]
    for line in loading_lines(inlined_path(copy.path)):
        assert line.endswith(": loads"), line


@pytest.mark.matrix
def test_onnx_writes_and_tries_both_files(command: Command, tmp_path: Path) -> None:
    needs.OPENVINO.require()
    weights = ("--model", "m2aenet", "--weights", "demo", "--shape", "1x3x32x48")
    result = command("onnx", *weights, "--inline", "-o", "net.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "net.inlined.onnx",
        "net.inlined.onnx.json",
        "net.onnx",
        "net.onnx.json",
    ]
    first, second = result.stdout.split("net.inlined.onnx:\n")
    assert "stock OpenVINO" in first
    assert "does not load" in first
    assert "does not load" not in second
    assert command("verify", "net.inlined.onnx", cwd=tmp_path).returncode == 0
