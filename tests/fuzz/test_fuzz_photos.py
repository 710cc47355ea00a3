"""Damaged photos: one line that names the file, or a finite picture of the size that it states."""

from __future__ import annotations

import io
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from deblur_export.artifact import read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.photo_file import read_photo
from deblur_export.export.images.photo_metadata import png_chunk, png_chunks
from deblur_export.export.images.photo_writer import write_photo
from deblur_export.export.restore import Restorer
from deblur_export.export.tile_choice import TileOptions
from tests.conftest import Exported
from tests.fuzz.seeds import seeds
from tests.test_cli import CPU, Invoke, invoke

__all__ = ["invoke"]  # a fixture
pytestmark = pytest.mark.fuzz
XMP = b"<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>"
TARGETS = (".png", ".jpg", ".webp", ".tif")
Damage = Callable[[random.Random, bytes], bytes]


def whole_photos() -> dict[str, bytes]:
    """A small file of every kind, with all the metadata that it can hold."""
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (19, 27, 4), np.uint8))
    rgb, exif = rgba.convert("RGB"), Image.Exif()
    exif.update({274: 6, 271: "maker", 282: 72.0, 0x8769: {37500: b"note" * 9}})
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a cat")
    info.add(b"gAMA", struct.pack(">I", 45455))
    common: dict[str, Any] = {"exif": exif.tobytes(), "icc_profile": bytes(200)}
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "rgb.jpg": (rgb, "JPEG", {"xmp": XMP, "comment": b"hello", "dpi": (72, 72), **common}),
        "progressive.jpg": (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
        "grey.jpg": (rgb.convert("L"), "JPEG", common),
        "cmyk.jpg": (rgb.convert("CMYK"), "JPEG", common),
        "rgba.png": (rgba, "PNG", {"pnginfo": info, "dpi": (72, 72), **common}),
        "palette.png": (rgb.quantize(16), "PNG", {"transparency": 3}),
        "bits.png": (rgb.convert("1"), "PNG", {}),
        "lossy.webp": (rgba, "WEBP", {"xmp": XMP, **common}),
        "lossless.webp": (rgba, "WEBP", {"lossless": True}),
        "plain.tif": (rgba, "TIFF", common),
        "lzw.tif": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": (rgb, "TIFF", {"compression": "jpeg"}),
        "a.bmp": (rgb, "BMP", {}),
    }
    files = {}
    for name, (image, kind, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    import cv2

    deep = rng.integers(0, 65536, (19, 27, 4), np.uint16)
    for suffix in (".png", ".tif"):
        files[f"deep{suffix}"] = cv2.imencode(suffix, deep)[1].tobytes()
    return files


def flip(rng: random.Random, data: bytes) -> bytes:
    """Some bytes are others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 40))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def flip_head(rng: random.Random, data: bytes) -> bytes:
    """As `flip`, in the first bytes: sizes, depths, offsets and metadata."""
    head = min(len(data), rng.choice((32, 128, 700)))
    return flip(rng, data[:head]) + data[head:]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def swap(rng: random.Random, data: bytes) -> bytes:
    """A piece is removed, doubled or full of one byte."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 60)]
    instead = rng.choice((b"", piece * 2, bytes([rng.randrange(256)]) * len(piece)))
    return data[:start] + instead + data[start + len(piece) :]


def extreme(rng: random.Random, data: bytes) -> bytes:
    """A number of two or four bytes is extreme."""
    size = rng.choice((2, 4))
    start = rng.randrange(max(1, min(len(data), 800) - size))
    number = rng.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 65535))
    order = rng.choice(("big", "little"))
    return data[:start] + number.to_bytes(size, order) + data[start + size :]  # type: ignore[arg-type]


def chunk(rng: random.Random, data: bytes) -> bytes:
    """A chunk of a PNG file is damaged, and its checksum is right all the same."""
    chunks = list(png_chunks(data)) if data.startswith(b"\x89PNG") else []
    if not chunks:
        return extreme(rng, data)
    number = rng.randrange(len(chunks))
    name, body = chunks[number]
    chunks[number] = name, flip(rng, body) if body else b"?"
    return data[:8] + b"".join(png_chunk(*one) for one in chunks)


DAMAGES: tuple[Damage, ...] = (flip, flip_head, cut, swap, extreme, chunk)


def hostile(seed: int, files: dict[str, bytes], folder: Path) -> Path:
    rng = random.Random(seed)
    name = rng.choice(sorted(files))
    data = files[name]
    for _ in range(rng.choice((1, 1, 2))):
        if len(data) > 16:  # else a cut has left nothing to damage
            data = rng.choice(DAMAGES)(rng, data) or b"?"
    path = folder / f"{seed}_{name}"
    path.write_bytes(data)
    return path


def stated_size(path: Path) -> tuple[int, int] | None:
    """Height and width according to Pillow; None if it cannot say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                upright = ImageOps.exif_transpose(image)
                return upright.height, upright.width
    except Exception:  # of Pillow, which raises anything
        return None


def test_damaged_photos_are_read_or_refused(tmp_path: Path) -> None:
    files, read = whole_photos(), 0
    for seed in seeds():
        path = hostile(seed, files, tmp_path)
        try:
            photo = read_photo(path)
        except DeblurExportError as error:
            said = str(error)
            assert said.startswith(f"{path}: ") and "\n" not in said, (seed, said)
            path.unlink()
            continue
        read += 1
        height, width, channels = photo.rgb.shape
        assert channels == 3 and np.isfinite(photo.rgb).all(), seed
        assert photo.rgb.min() >= 0 and photo.rgb.max() <= 1, seed
        assert photo.alpha is None or photo.alpha.shape == (height, width), seed
        if photo.bits == 8:
            assert stated_size(path) in (None, (height, width)), seed
        target = tmp_path / f"out{random.Random(seed).choice(TARGETS)}"
        try:
            write_photo(photo, photo.rgb, target)
        except DeblurExportError as error:
            assert str(error).startswith(f"{target}: "), (seed, str(error))
        else:
            assert read_photo(target).rgb.shape == photo.rgb.shape, seed
            target.unlink()
        path.unlink()
    assert read > 0


def test_run_with_damaged_photos(exported: Exported, invoke: Invoke, tmp_path: Path) -> None:
    """The command: 0, or 2 with one line; what it writes is a picture of the right size."""
    net = exported("nafnet").path
    files = {name: data for name, data in whole_photos().items() if not name.endswith(".bmp")}
    loaded = Restorer(read_artifact(net))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deblur_export.export.restore.Restorer", lambda *rest: loaded)
        for seed in seeds():
            path = hostile(seed, files, tmp_path)
            try:
                photo = read_photo(path)
            except DeblurExportError:
                photo = None
            if photo is not None and photo.rgb.size > 3_000_000:
                path.unlink()
                continue
            code, _, err = invoke("run", net, path.name, "-o", "out", "--overwrite", *CPU)
            # libtiff and libpng, inside Pillow and OpenCV, write lines of their own.
            lines = err.splitlines(keepends=True)
            err = "".join(line for line in lines if line.startswith("error: "))
            written = tmp_path / "out" / path.name
            assert "internal error" not in err, (seed, err)
            if code == 0:
                assert photo is not None and err == "", (seed, err)
                expected = loaded.restore(photo.rgb, TileOptions()).rgb
                assert np.isfinite(expected).all(), seed
                assert read_photo(written).rgb.shape == photo.rgb.shape, seed
                written.unlink()
            else:
                assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, (seed, err)
                assert not written.exists(), seed
            path.unlink()
