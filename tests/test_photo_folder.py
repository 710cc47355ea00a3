"""One photo that cannot be read does not stop the verbs that take many."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_export.calibration.images import photo_crops
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.pairs import open_pairs
from deblur_export.export.parity.ground_truth import compare_with_ground_truth
from deblur_export.models.training.data.make import DatasetPlan, make_dataset
from deblur_export.models.training.data.photos import split_of
from deblur_export.photo_folder import photos_in, usable
from tests.conftest import Exported
from tests.test_cli import Invoke, assert_refused, invoke, photo

__all__ = ["invoke"]  # a fixture
DYNAMIC = ("batch", 3, "height", "width")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good photos, a broken one, and what macOS and other programs leave."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "c.JFIF.jpg"):
        photo(photos / name, size=(40, 40))
    (photos / "b.jpg").write_bytes(b"not a photo")
    for name in ("._a.png", ".tmp-1.png", "notes.txt"):
        (photos / name).write_bytes(b"\0\5\x16\7")
    (photos / "below.png").mkdir()
    return photos


def test_the_photos_of_a_folder(folder: Path) -> None:
    assert [path.name for path in photos_in(folder)] == ["a.png", "b.jpg", "c.JFIF.jpg"]
    with pytest.raises(DeblurExportError, match="this is a file; give the folder"):
        photos_in(folder / "a.png")


def test_none_that_is_usable_is_an_error() -> None:
    def read(path: Path) -> str:
        if path.name != "good":
            raise DeblurExportError(f"{path}: broken")
        return path.name

    said: list[str] = []
    assert usable([Path("bad"), Path("good")], read, said.append) == ["good"]
    assert said == ["left out: bad: broken"]
    with pytest.raises(DeblurExportError, match="one: broken"):
        usable([Path("one"), Path("two")], read, said.append)


def test_verify_and_ranges(folder: Path, exported: Exported, invoke: Invoke) -> None:
    net = exported("nafnet").path
    code, out, err = invoke("verify", net, "--images", folder)
    assert (code, err) == (0, "")
    assert "note: left out: " in out and "b.jpg: not a readable" in out and "._a" not in out
    code, out, err = invoke("ranges", net, "--images", folder)
    assert (code, err) == (0, "")
    assert "left out: " in out and "b.jpg" in out and "._a" not in out
    for name in ("a.png", "c.JFIF.jpg"):
        (folder / name).unlink()
    assert_refused(invoke("verify", net, "--images", folder), "not a readable")


def test_calibration(folder: Path, exported: Exported) -> None:
    said: list[str] = []
    net = exported("nafnet")
    crops = photo_crops(folder, net, 4, 32, lambda step: None, leave_out=said.append)
    assert len(crops.images) == 4
    assert [line.startswith("left out: ") and "b.jpg" in line for line in said][:1] == [True]


def test_pairs_with_the_sharp_photo(folder: Path, tmp_path: Path) -> None:
    for part in ("blurred", "sharp"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        for name in ("a.png", "b.jpg", "c.JFIF.jpg"):
            shutil.copy(folder / name, tmp_path / "pairs" / part)
    found = compare_with_ground_truth(
        open_pairs(tmp_path / "pairs", DYNAMIC), lambda x: x, lambda x: x, 0.1
    )
    assert [pair.name for pair in found.pairs] == ["a.png", "c.JFIF.jpg"]
    assert len(found.left_out) == 1 and "b.jpg" in found.left_out[0]


def test_a_dataset_names_all_photos_that_cannot_be_used(tmp_path: Path) -> None:
    names = [name for name in (f"{n}.png" for n in range(40)) if split_of(name) == "train"][:3]
    Image.fromarray(np.zeros((90, 90, 3), np.uint8)).save(tmp_path / names[0])
    for name in names[1:]:
        (tmp_path / name).write_bytes(b"broken")
    plan = DatasetPlan(tmp_path, {"train": 1}, size=64)
    with pytest.raises(DeblurExportError, match="2 of 3 photos cannot be used") as caught:
        make_dataset(tmp_path / "data", plan)
    assert all(name in str(caught.value) for name in names[1:])
