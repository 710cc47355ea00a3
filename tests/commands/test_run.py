"""`deblur-export run`: batches, folders, names of results, and photos that fail."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.batch import find_photos, plan_jobs
from deblur_export.export.restore import Restorer, restore_file
from deblur_export.export.tile_choice import TileOptions
from tests.conftest import Exported
from tests.test_cli import CPU, Invoke, assert_refused, invoke, photo

__all__ = ["invoke"]  # a fixture
EMPTY = b""


@pytest.fixture
def net(exported: Exported, tmp_path: Path) -> Artifact:
    return exported("nafnet")


def test_a_photo_that_cannot_be_read_does_not_stop_the_others(
    net: Artifact, invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "c.jfif", "d.jpg"):
        photo(tmp_path / f"in/{name}")
    (tmp_path / "in/b.png").write_bytes(EMPTY)
    (tmp_path / "in/e.jpg").write_bytes((tmp_path / "in/d.jpg").read_bytes()[:300])
    (tmp_path / "in/._a.png").write_bytes(b"\0\5\x16\7" + bytes(100))
    (tmp_path / "in/notes.txt").touch()
    (tmp_path / "in/below").mkdir()
    photo(tmp_path / "in/below/f.png")
    code, out, err = invoke("run", net.path, "in", "in/a.png", *CPU)
    assert code == 1
    assert err == "error: 2 of 5 photos were not restored: in/b.png, in/e.jpg\n"
    results = sorted(path.name for path in (tmp_path / "restored").iterdir())
    assert results == ["a.png", "c.jfif", "d.jpg"]
    assert Image.open(tmp_path / "restored/c.jfif").format == "JPEG"
    listed = out[out.index("not restored:") :].splitlines()
    assert [line.split(": ")[1] for line in listed] == ["in/b.png", "in/e.jpg"]
    assert "empty (0 bytes)" in listed[0] and "damaged or cut short" in listed[1]


def test_a_single_photo_that_fails_is_bad_input(net: Artifact, invoke: Invoke) -> None:
    Path("b.png").write_bytes(EMPTY)
    assert_refused(invoke("run", net.path, "b.png", *CPU), "b.png", "empty")


def test_results_are_not_replaced_without_being_asked(
    net: Artifact, invoke: Invoke, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png")
    line = ("run", net.path, "a.png", "-o", "out", *CPU)
    assert invoke(*line)[0] == 0
    before = (tmp_path / "out/a.png").stat().st_ino
    photo(tmp_path / "b.png")
    assert_refused(invoke(*line, "b.png"), "out/a.png: there already", "--overwrite")
    assert not (tmp_path / "out/b.png").exists()
    assert (tmp_path / "out/a.png").stat().st_ino == before
    assert invoke(*line, "b.png", "--overwrite")[0] == 0
    assert (tmp_path / "out/b.png").exists()


def test_what_is_known_beforehand_is_said_before_the_network_is_loaded(
    net: Artifact, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("the network is loaded")

    monkeypatch.setattr("deblur_export.export.restore.Restorer.__init__", fail)
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    shutil.copy("a.png", "a.bin")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    said: dict[tuple[str, ...], tuple[str, ...]] = {
        ("a.png", "x.png", "y.png"): ("no such file or folder: x.png, y.png",),
        ("a.png", *(f"{n}.png" for n in range(9))): ("0.png, 1.png, 2.png and 6 more",),
        ("a.png", f"{'x' * 300}.png"): ("no such file or folder",),
        ("a.bin",): ("restored/a.bin", "--format"),
        ("empty",): ("no photos inside",),
        ("a.png", "-o", "file"): ("is a file",),
        ("a.png", "--quality", "90"): ("--quality is for JPEG and WebP",),
        ("a.png", "--quality", "101"): ("101",),
        ("a.png", "a.bin", "--format", "png"): ("a.png and the result of a.bin would both be",),
    }
    for arguments, words in said.items():
        assert_refused(invoke("run", net.path, *arguments), *words)
    monkeypatch.setattr("deblur_export.artifact.ModelFile.proto", property(fail))
    assert_refused(invoke("run", net.path, "x.png"), "no such file or folder: x.png")
    assert not (tmp_path / "restored").exists()


def test_quality_and_sampling(net: Artifact, invoke: Invoke, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=99, subsampling=0)
    assert invoke("run", net.path, "a.jpg", "-o", "one", *CPU)[0] == 0
    assert invoke("run", net.path, "a.jpg", "-o", "two", "--quality", "50", *CPU)[0] == 0
    with Image.open("one/a.jpg") as one, Image.open("a.jpg") as source:
        assert one.quantization == source.quantization
        assert JpegImagePlugin.get_sampling(one) == 0
    assert Path("two/a.jpg").stat().st_size < Path("one/a.jpg").stat().st_size / 3


def test_photos_and_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    for name in ("z.png", "b/x.png", "b/y.jpg"):
        photo(Path(name))
    found = find_photos([Path("z.png"), Path("b"), Path("b/../b/y.jpg"), Path("z.png")])
    assert found == [Path("z.png"), Path("b/x.png"), Path("b/y.jpg")]
    jobs = plan_jobs(found, Path("out"), "webp", mask=True)
    assert [job.target.name for job in jobs] == ["z.webp", "x.webp", "y.webp"]
    assert jobs[0].mask == Path("out/z_mask.png")
    with pytest.raises(DeblurExportError, match=r"mask of z\.png would overwrite this file"):
        photo(Path("z_mask.png"))
        plan_jobs([*found, Path("z_mask.png")], Path(), "webp", mask=True, overwrite=True)


def test_colours_under_full_transparency_do_not_bleed(net: Artifact, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 50, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[10:30, 20:40, 3] = 0
    results: list[Any] = []
    for name, colour in (("a.png", 0), ("b.png", 255)):
        pixels[10:30, 20:40, :3] = colour
        Image.fromarray(pixels).save(tmp_path / name)
        restore_file(Restorer(net), tmp_path / name, tmp_path / f"out_{name}", TileOptions())
        results.append(np.asarray(Image.open(tmp_path / f"out_{name}")))
        assert np.array_equal(results[-1][10:30, 20:40], pixels[10:30, 20:40])
    visible = pixels[..., 3] > 0
    assert np.array_equal(results[0][visible], results[1][visible])
    assert not np.array_equal(results[0][visible], pixels[visible])


def test_a_photo_too_large_for_memory_is_one_of_the_failures(
    net: Artifact, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = Restorer.restore

    def short_of_memory(self: Restorer, rgb: Any, *rest: Any) -> Any:
        if rgb.shape[0] > 20:
            raise MemoryError
        return restore(self, rgb, *rest)

    monkeypatch.setattr(Restorer, "restore", short_of_memory)
    photo(tmp_path / "a.png", size=(30, 30))
    photo(tmp_path / "b.png")
    code, out, err = invoke("run", net.path, "a.png", "b.png", *CPU)
    assert (code, err) == (1, "error: 1 of 2 photos were not restored: a.png\n")
    assert "not restored: a.png: out of memory" in out and "--tile 512" in out


def test_names_with_control_characters_are_escaped(
    net: Artifact, invoke: Invoke, tmp_path: Path
) -> None:
    photo(tmp_path / "a\x1b[2J.png")
    (tmp_path / "b\x1b[2J.png").write_bytes(EMPTY)
    code, out, err = invoke("run", net.path, ".", *CPU)
    assert code == 1 and "\x1b" not in out + err and r"a\x1b[2J.png" in out
