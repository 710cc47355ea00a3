"""Every script of examples/ runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_export.export.restore import Restorer
from deblur_export.export.tile_choice import TileOptions
from deblur_export.models.checkpoint import load_model
from deblur_export.plugins.libraries import openvino as openvino_library
from tests.conftest import Exported
from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"
Example = Callable[..., str]


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """example(name, *arguments) -> what the script prints, run in tmp_path."""

    def run(name: str, *arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """45 pixels wide and 33 high."""
    pixels = np.random.default_rng(0).integers(0, 256, (33, 45, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def assert_restored(exported: Exported, photo: Path, result: Path) -> None:
    """A result differs from that of `deblur-export run` by the last bit at most."""
    with Image.open(photo) as image, Image.open(result) as other:
        rgb = np.asarray(image, np.float32) / 255
        found = np.asarray(other).astype(int)
    expected = Restorer(exported()).restore(rgb, TileOptions()).rgb
    assert np.abs(found - np.rint(255 * expected.clip(0, 1))).max() <= 1


def test_onnxruntime_only(
    example: Example, exported: Exported, photo: Path, tmp_path: Path
) -> None:
    example("onnxruntime_only.py", exported().path, photo, "restored.png")
    assert_restored(exported, photo, tmp_path / "restored.png")


def test_openvino_only(example: Example, exported: Exported, photo: Path, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    library = openvino_library.find(openvino.__version__)
    if library.reason:
        pytest.skip(f"no native ops for OpenVINO: {library.reason}")
    example("openvino_only.py", exported().path, library.path, photo, "restored.png")
    assert_restored(exported, photo, tmp_path / "restored.png")


@pytest.mark.slow
def test_python_api(example: Example, photo: Path, tmp_path: Path) -> None:
    state = load_model("m2aenet", "tiny", "demo").net.state_dict()
    torch.save(state, tmp_path / "net.pth")
    (tmp_path / "photos").mkdir()
    photo.rename(tmp_path / "photos/photo.png")
    assert "PASS" in example("python_api.py", "net.pth", "photos", "restored")
    with Image.open(tmp_path / "restored/photo.png") as image:
        assert image.size == (45, 33)
    assert (tmp_path / "parity.html").is_file()


@pytest.mark.slow
def test_int8(example: Example, exported: Exported, photos: Path, tmp_path: Path) -> None:
    artifact = exported(weights="demo")
    for suffix in ("", ".json"):
        shutil.copy(f"{artifact.path}{suffix}", tmp_path / f"net.onnx{suffix}")
    (tmp_path / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png"):
        shutil.copy(photos / name, tmp_path / "photos")
    assert "PASS" in example("int8.py", "net.onnx", "photos")


@pytest.mark.parametrize("name", ["onnxruntime_only.py", "openvino_only.py"])
def test_examples_without_the_package_do_not_import_it(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "import deblur_export" not in text
    assert "from deblur_export" not in text


def test_every_example_has_a_test() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    page = (ROOT / "docs/your-network.md").read_text(encoding="utf-8")  # whose code is run
    assert [
        file.name
        for file in EXAMPLES.glob("*.py")
        if f'example("{file.name}"' not in tests and f"examples/{file.name}" not in page
    ] == []
