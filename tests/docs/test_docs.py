"""Every block of README and docs/ is run, in order, in one folder a page."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_export import cli
from deblur_export.models.checkpoint import load_model
from deblur_export.models.foreign.locate import locate
from tests.conftest import Exported
from tests.docs.pages import ROOT, Block, Page, pages
from tests.models.training.small_dataset import write_dataset

RUNNABLE = ("bash", "console", "python")
# By their names, `pairs` takes garden for validation and cup for test.
PHOTOS = {
    "cat": "chelsea.png",
    "cup": "coffee.png",
    "garden": "grass.png",
    "rocket": "rocket.jpg",
}
SIDE = 272  # pixels: more than calibration cuts out of a photo


def is_run(block: Block, kinds: tuple[str, ...]) -> bool:
    return block.language in RUNNABLE and block.kind in kinds


def having(*kinds: str) -> list[Page]:
    return [page for page in pages() if any(is_run(block, kinds) for block in page.blocks)]


class Reader:
    """Does in a folder what a page says."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capture = folder, capture
        self.names: dict[str, Any] = {"__name__": "__docs__"}

    def do(self, block: Block) -> None:
        if block.language == "python":
            exec(compile(block.text, f"block of line {block.line}", "exec"), self.names)
        elif block.language == "console":
            self.console(block)
        elif all(line.startswith(("deblur-export ", "#")) for line in filter(None, block.commands)):
            for line in block.commands:
                if arguments := shlex.split(line, comments=True):
                    code, text = self.call(arguments[1:])
                    assert code == 0, f"{line}\n{text}"
        else:
            code, text = self.shell(block.text)
            assert code == 0, f"{block.text}\n{text}"

    def call(self, arguments: list[str]) -> tuple[int, str]:
        """deblur-export in this process: exit code, and all that it printed."""
        previous = signal.getsignal(signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["deblur-export", *arguments])
            with pytest.raises(SystemExit) as stop:
                cli.main()
        signal.signal(signal.SIGTERM, previous)
        return int(stop.value.code or 0), "".join(self.capture.readouterr())

    def shell(self, text: str) -> tuple[int, str]:
        """Bash, with deblur-export and python being those under test."""
        places = (self.folder / ".bin", Path(sys.executable).parent, os.environ["PATH"])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=os.environ | {"PATH": os.pathsep.join(map(str, places))},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def console(self, block: Block) -> None:
        """Commands behind "$ ", each followed by lines that it prints; "..." stands for
        anything. An error line needs an exit code that is not 0."""
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, expected = part.partition("\n")
            words = shlex.split(line, comments=True)
            code, text = self.call(words[1:]) if words[0] == "deblur-export" else self.shell(line)
            assert bool(code) == ("error: " in expected), f"{line}\n{text}"
            assert shows(text, expected), f"{line}\nprinted\n{text}\nnot\n{expected}"


def shows(text: str, expected: str) -> bool:
    """Whether the expected lines are in the text, in this order; spaces and line ends count as
    one space."""
    parts = [re.escape(" ".join(line.split())) for line in expected.splitlines() if line.strip()]
    pattern = r".*".join(part.replace(r"\.\.\.", ".*?") for part in parts)
    return re.search(pattern, " ".join(text.split())) is not None


def takes_file(blocks: list[Block]) -> bool:
    """Whether blocks use net.onnx before they make it."""
    lines = (line for block in blocks for line in block.text.splitlines() if "net.onnx" in line)
    return "-o net.onnx" not in next(lines, "-o net.onnx")


def prepare(folder: Path, photos: Path) -> None:
    """What pages take for given: photos, pairs, a dataset and a checkpoint."""
    for name in ("photos", "pairs/blurred", "pairs/sharp", ".bin"):
        (folder / name).mkdir(parents=True)
    for name, source in PHOTOS.items():
        with Image.open(photos / source) as image:
            sharp = np.asarray(image.convert("RGB"))[:SIDE, :SIDE]
        blurred = np.mean([np.roll(sharp, shift, 1) for shift in range(5)], axis=0)
        Image.fromarray(sharp).save(folder / "photos" / f"{name}.jpg")
        for kind, pixels in (("sharp", sharp), ("blurred", blurred)):
            small = Image.fromarray(pixels[:96, :96].astype(np.uint8))
            small.save(folder / "pairs" / kind / f"{name}.png")
    shutil.copy(folder / "photos/cat.jpg", folder / "blurred.jpg")
    write_dataset(folder / "dataset", size=96)
    torch.save(load_model("nafnet", "tiny", "demo").net.state_dict(), folder / "net.pth")
    shutil.copy(ROOT / "examples/unet.py", folder)
    torch.save(
        locate(f"{folder / 'unet.py'}:UNet").build({"width": 8}).state_dict(), folder / "unet.pth"
    )
    for name, module in (("deblur-export", "-m deblur_export "), ("python", "")):
        script = folder / ".bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n', encoding="utf-8")
        script.chmod(0o755)


@pytest.fixture
def reader(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Reader:
    prepare(tmp_path, photos)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    return Reader(tmp_path, capfd)


def read(page: Page, kinds: tuple[str, ...], reader: Reader, exported: Exported) -> None:
    blocks = [block for block in page.blocks if is_run(block, kinds)]
    if takes_file(blocks):
        artifact = exported(weights="demo" if "slow" in kinds else "random:0")
        for suffix in ("", ".json"):
            shutil.copy(f"{artifact.path}{suffix}", reader.folder / f"net.onnx{suffix}")
    for block in blocks:
        reader.do(block)


@pytest.mark.parametrize("page", having("run"), ids=lambda page: page.name)
def test_page(page: Page, reader: Reader, exported: Exported) -> None:
    read(page, ("run",), reader, exported)


@pytest.mark.slow
@pytest.mark.parametrize("page", having("slow"), ids=lambda page: page.name)
def test_whole_page(page: Page, reader: Reader, exported: Exported) -> None:
    read(page, ("run", "slow"), reader, exported)


def test_a_failing_block_fails(reader: Reader) -> None:
    for language, text in (
        ("bash", "deblur-export verify lost.onnx"),
        ("bash", "true\nfalse\ntrue"),
        ("python", "assert not True"),
        ("console", "$ deblur-export verify lost.onnx\nerror: another\n"),
        ("console", "$ deblur-export verify lost.onnx\n"),
        ("console", "$ echo\nerror: lost\n"),
    ):
        with pytest.raises(AssertionError):
            reader.do(Block(1, language, text, "run", ""))
    reader.do(
        Block(1, "console", "$ deblur-export verify lost.onnx\nerror: ... no such\n", "run", "")
    )
