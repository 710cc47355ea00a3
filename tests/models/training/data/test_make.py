from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data import make
from deblur_export.models.training.data.make import DatasetPlan, make_dataset
from deblur_export.models.training.data.photos import SPLITS, split_of

COUNTS = {"train": 5, "val": 2, "test": 3}
ARRAYS = ("blurred", "sharp", "mask", "motion")


def plan(photos: Path, **changes: int) -> DatasetPlan:
    return DatasetPlan(photos, COUNTS, **{"seed": 3, "size": 64, **changes})


def test_two_jobs_make_what_one_makes(photo_folder: Path, tmp_path: Path) -> None:
    ticks: list[int] = []
    assert make_dataset(tmp_path / "one", plan(photo_folder), 1, lambda: ticks.append(1))
    assert make_dataset(tmp_path / "two", plan(photo_folder), 2)
    assert len(ticks) == 10
    for split in SPLITS:
        for name in ARRAYS:
            one, two = (np.load(tmp_path / p / split / f"{name}.npy") for p in ("one", "two"))
            np.testing.assert_array_equal(one, two)
            assert one.shape[:3] == (COUNTS[split], 64, 64)
            assert one.dtype == (np.float16 if name == "motion" else np.uint8)
    one, two = ((tmp_path / p / "dataset.json").read_text(encoding="utf-8") for p in ("one", "two"))
    assert one == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "photos", "two"]


def test_description(photo_folder: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "dataset", plan(photo_folder))
    told = json.loads((tmp_path / "dataset/dataset.json").read_text(encoding="utf-8"))
    assert told["counts"] == COUNTS and told["seed"] == 3 and told["size"] == 64
    photo = next(photo for photo in told["photos"] if photo["file"] == "farm-pig.webp")
    assert photo["licence"] == "public domain" and photo["split"] == "train"
    assert len(photo["sha256"]) == 64


def test_pairs_show_photos_of_their_split(photo_folder: Path, tmp_path: Path) -> None:
    """Each split has flat photos of one colour; its sharp images have that colour and no other."""
    colours = {"train": 40, "val": 120, "test": 200}
    for path in photo_folder.iterdir():
        flat = np.full((120, 120, 3), colours[split_of(path.name)], np.uint8)
        Image.fromarray(flat).save(path, "PNG")
    make_dataset(tmp_path / "dataset", plan(photo_folder))
    for split, value in colours.items():
        sharp = np.load(tmp_path / "dataset" / split / "sharp.npy", mmap_mode="r")
        assert np.abs(sharp.astype(int) - value).max() <= 2


def test_another_dataset_is_not_overwritten(photo_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    make_dataset(folder, plan(photo_folder))
    before = (folder / "train/sharp.npy").stat().st_mtime_ns
    assert not make_dataset(folder, plan(photo_folder)), "the same dataset is there already"
    with pytest.raises(DeblurExportError, match="another seed"):
        make_dataset(folder, plan(photo_folder, seed=4))
    (folder / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(DeblurExportError, match="is not a dataset"):
        make_dataset(folder, plan(photo_folder))
    assert (folder / "train/sharp.npy").stat().st_mtime_ns == before


def test_version_of_the_generator_counts(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "dataset", plan(photo_folder))
    monkeypatch.setattr(make, "VERSION", 10**6)
    with pytest.raises(DeblurExportError, match="another seed"):
        make_dataset(tmp_path / "dataset", plan(photo_folder))


def test_failure_leaves_nothing(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / "dataset", plan(photo_folder), 1, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(DeblurExportError, match="GB left"):
        make_dataset(tmp_path / "dataset", plan(photo_folder))


def test_missing_split_and_small_photo(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match=r"too small.*256"):
        make_dataset(tmp_path / "dataset", plan(photo_folder, size=256))
    (photo_folder / "farm-sheep.webp").unlink()
    with pytest.raises(DeblurExportError, match="for the split 'val'"):
        make_dataset(tmp_path / "dataset", plan(photo_folder))
    assert not (tmp_path / "dataset").exists()
