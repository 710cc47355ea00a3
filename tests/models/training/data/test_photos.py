from __future__ import annotations

import struct
from pathlib import Path

import cv2
import pytest
from PIL import Image

from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data import fetch as fetching
from deblur_export.models.training.data.fetch import fetch, read_resource
from deblur_export.models.training.data.photos import (
    PHOTOS,
    SPLITS,
    find_photos,
    load_photo,
    sharpness,
    split_of,
)
from tests.models.training.data.conftest import textured


def test_table_is_whole_and_its_splits_are_disjoint() -> None:
    names = [photo.name for photo in PHOTOS]
    assert len(set(names)) == len(names) >= 25
    assert {photo.split for photo in PHOTOS} == set(SPLITS)
    for photo in PHOTOS:
        assert photo.author and photo.licence and photo.package and photo.member
    test = {photo.name for photo in PHOTOS if photo.split == "test"}
    assert test >= {"astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"}


def test_own_photos_are_split_by_name(tmp_path: Path) -> None:
    splits = [split_of(f"IMG_{i:04}.jpg") for i in range(500)]
    assert splits == [split_of(f"IMG_{i:04}.jpg") for i in range(500)]
    assert 350 < splits.count("train") < 450
    assert min(splits.count("val"), splits.count("test")) > 25
    assert split_of("farm-sheep.webp") == "val"


def test_find_photos(tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match="no such folder"):
        find_photos(tmp_path / "none")
    (tmp_path / "readme.txt").write_text("no photo", encoding="utf-8")
    with pytest.raises(DeblurExportError, match="no photos inside"):
        find_photos(tmp_path)
    for name in ("b.PNG", "astronaut.png", "a.jpg"):
        (tmp_path / name).write_bytes(b"x")
    files = find_photos(tmp_path)
    assert [file.path.name for file in files] == ["a.jpg", "astronaut.png", "b.PNG"]
    assert files[1].describe()["author"] == "NASA"
    assert files[0].describe()["licence"] == "not listed"


def test_broken_photo_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(textured(0, 64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DeblurExportError, match=r"cut\.png: not a readable photo"):
        load_photo(path)


def test_large_and_soft_photos_are_shrunk(tmp_path: Path) -> None:
    small = textured(0, 600, 800)
    cases = {
        "sharp.png": small,
        "large.png": cv2.resize(small, (2400, 1800), interpolation=cv2.INTER_CUBIC),
        "soft.png": cv2.resize(small, (1500, 1125), interpolation=cv2.INTER_CUBIC),
    }
    for name, pixels in cases.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    assert load_photo(tmp_path / "sharp.png").shape == (600, 800, 3)
    assert max(load_photo(tmp_path / "large.png").shape) < 1200
    soft = load_photo(tmp_path / "soft.png")
    assert max(soft.shape) < 1200 and sharpness(soft) > sharpness(cases["soft.png"])


def resource(files: dict[str, bytes], flags: int = 0) -> bytes:
    """A Qt resource archive of version 3 with the files in one folder "dir"."""
    names, offsets = b"", []
    for name in ("dir", *files):
        offsets.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHIIQ", 0, 2, 1, 1, 0) + struct.pack(">IHIIQ", 0, 2, len(files), 2, 0)
    blobs = b""
    for offset, data in zip(offsets[1:], files.values(), strict=True):
        tree += struct.pack(">IHHHIQ", offset, flags, 0, 0, len(blobs), 0)
        blobs += struct.pack(">I", len(data)) + data
    start = 24
    places = (start, start + len(tree), start + len(tree) + len(blobs))
    return b"qres" + struct.pack(">5I", 3, *places, 0) + tree + blobs + names


def test_resource_archive() -> None:
    archive = resource({"a.webp": b"first", "b.webp": b"second"})
    assert read_resource(archive, "/dir/b.webp") == b"second"
    assert read_resource(archive, "/dir/c.webp") is None
    with pytest.raises(DeblurExportError, match="not a Qt resource"):
        read_resource(b"PK", "/dir/a.webp")
    with pytest.raises(DeblurExportError, match="truncated"):
        read_resource(archive[:40], "/dir/a.webp")
    with pytest.raises(DeblurExportError, match="compressed"):
        read_resource(resource({"a.webp": b"x"}, flags=1), "/dir/a.webp")


def test_fetch_without_apt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "which", lambda _: None)
    with pytest.raises(DeblurExportError, match="apt-get"):
        list(fetch(tmp_path / "photos"))


def test_fetch_copies_from_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One package holds its photo, the others are of another version."""

    def unpack(package: str, folder: Path) -> Path:
        if package == "palapeli-data":
            target = folder / "usr/share/palapeli/collection"
            target.mkdir(parents=True)
            (target / "citrus-fruits.jpg").write_bytes(b"fruit")
        return folder

    monkeypatch.setattr(fetching, "_unpack", unpack)
    monkeypatch.setattr(fetching, "_wheel_folder", lambda: tmp_path)
    done = list(fetch(tmp_path / "photos"))
    assert [photo.name for photo, found in done if found] == ["citrus-fruits.jpg"]
    assert len(done) == len(PHOTOS)
    assert (tmp_path / "photos/citrus-fruits.jpg").read_bytes() == b"fruit"
