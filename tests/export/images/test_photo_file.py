"""A round trip preserves pixels, bit depth, alpha, colour profile and orientation of photos."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from deblur_export import photo_memory
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.photo_encoding import Encoding
from deblur_export.export.images.photo_file import Photo, read_photo
from deblur_export.export.images.photo_metadata import Metadata
from deblur_export.export.images.photo_writer import write_photo
from tests import needs

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF_IFD, MAKER_NOTE = 0x8769, 37500
sizes = pytest.mark.parametrize("size", [(1, 1), (3, 5), (24, 17)])


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png16(samples: np.ndarray[Any, Any], *extra: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG, also of kinds that neither Pillow nor OpenCV can write."""
    height, width, channels = samples.shape
    body = b"".join(b"\0" + row.tobytes() for row in samples.astype(">u2"))
    head = struct.pack(">IIBBBBB", width, height, 16, [0, 0, 4, 2, 6][channels], 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def photo_of(bits: int = 8, **other: Any) -> Photo:
    alpha = noise(8, 8, dtype=np.uint16 if bits == 16 else np.uint8)
    some = {"rgb": np.full((8, 8, 3), 0.5, np.float32), "alpha": alpha, "bits": bits, "grey": False}
    rest = {"metadata": Metadata(), "encoding": Encoding(), "format": "PNG", "notes": ()}
    return Photo(**{**some, **rest, **other})


@sizes
@pytest.mark.parametrize("suffix", [".png", ".TIFF"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_8_bit_round_trip(tmp_path: Path, mode: str, suffix: str, size: tuple[int, int]) -> None:
    source, copy = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    image = Image.fromarray(noise(*size, 3 if mode == "P" else 4)).convert(mode)
    image.save(source, icc_profile=SRGB)
    photo = read_photo(source)
    assert (photo.rgb.dtype, photo.bits) == (np.float32, 8)
    assert photo.grey == (mode in ("1", "L", "LA"))
    assert write_photo(photo, photo.rgb, copy) == ()
    with Image.open(copy) as back:
        assert np.array_equal(np.asarray(back.convert("RGBA")), np.asarray(image.convert("RGBA")))
        assert back.info["icc_profile"] == SRGB
        assert back.mode == {"1": "L", "P": "RGB"}.get(mode, mode)


@sizes
@pytest.mark.parametrize("out", [".png", ".tif"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_round_trip(tmp_path: Path, channels: int, suffix: str, out: str, size: Any) -> None:
    pixels = noise(*size, channels, dtype=np.uint16)
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
    photo = read_photo(tmp_path / f"a{suffix}")
    rgb = pixels[..., [2, 1, 0]] if channels > 1 else pixels.repeat(3, axis=2)
    assert np.array_equal(np.rint(photo.rgb * 65535), rgb)
    assert (photo.bits, photo.grey, photo.notes) == (16, channels == 1, ())
    assert write_photo(photo, photo.rgb, tmp_path / f"b{out}") == ()
    back = cv2.imread(str(tmp_path / f"b{out}"), cv2.IMREAD_UNCHANGED)
    assert back.dtype == np.uint16
    assert np.array_equal(back.reshape(pixels.shape), pixels)
    assert np.array_equal(read_photo(tmp_path / f"b{out}").rgb, photo.rgb)


def test_16_bit_grey_with_alpha(tmp_path: Path) -> None:
    pixels = noise(4, 6, 2, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png16(pixels))
    photo = read_photo(tmp_path / "a.png")
    assert photo.grey
    for name in ["b.png", "c.tif"]:  # each is written from the previous one
        assert write_photo(photo, photo.rgb, tmp_path / name) == ()
        photo = read_photo(tmp_path / name)
        assert np.array_equal(np.rint(photo.rgb * 65535), pixels[..., :1].repeat(3, axis=2))
        assert photo.alpha.dtype == np.uint16
        assert np.array_equal(photo.alpha, pixels[..., 1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif.update({274: orientation, 271: "maker", 256: 5, EXIF_IFD: {MAKER_NOTE: b"note"}})
    buffer = io.BytesIO()  # Pillow 13 decodes such TIFF files wrongly if it opens them by name
    image = Image.fromarray(noise(3, 5, 4)).convert("RGB" if suffix == ".jpg" else "RGBA")
    image.save(buffer, Image.registered_extensions()[suffix], exif=exif.tobytes(), quality=90)
    (tmp_path / f"a{suffix}").write_bytes(buffer.getvalue())
    photo = read_photo(tmp_path / f"a{suffix}")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    assert np.array_equal(np.rint(photo.rgb * 255), expected[..., :3])
    assert suffix == ".jpg" or np.array_equal(photo.alpha, expected[..., 3])
    for out in [".jpg", ".png", ".webp", ".tif"]:
        write_photo(photo, photo.rgb, tmp_path / f"b{out}")
        with Image.open(tmp_path / f"b{out}") as back:
            back.load()
            assert back.size == expected.shape[1::-1]
            tags = back.getexif()
            assert (tags.get(274, 1), tags[271]) == (1, "maker")
            assert tags.get_ifd(EXIF_IFD)[MAKER_NOTE] == b"note"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "<", ">", "zlib"])
def test_orientation_16_bit(tmp_path: Path, kind: str, orientation: int) -> None:
    pixels = noise(3, 5, 4, dtype=np.uint16)
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "a.bin").write_bytes(png16(pixels, (b"eXIf", exif.tobytes()[6:])))
    if kind != "png":
        coding = {"zlib": {"compression": "zlib"}, ">": {"byteorder": ">"}}.get(kind, {})
        layout = {"photometric": "rgb", "extrasamples": ["unassalpha"], **coding}
        tags = [(274, 3, 1, orientation, True)]
        tiff = needs.TIFFFILE.load()
        tiff.imwrite(tmp_path / "a.bin", pixels, extratags=tags, **layout)
    photo = read_photo(tmp_path / "a.bin")
    index = Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5))
    index.info["exif"] = exif.tobytes()
    expected = pixels.reshape(15, 4)[np.asarray(ImageOps.exif_transpose(index))]
    assert np.array_equal(np.rint(photo.rgb * 65535), expected[..., :3])
    assert np.array_equal(photo.alpha, expected[..., 3])


def test_16_bit_keeps_profile_and_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.update({271: "maker", EXIF_IFD: {MAKER_NOTE: b"note"}})
    pixels = noise(9, 7, 3, dtype=np.uint16)
    iccp = (b"iCCP", b"sRGB\0\0" + zlib.compress(SRGB))
    (tmp_path / "a.png").write_bytes(png16(pixels, iccp, (b"eXIf", exif.tobytes()[6:])))
    photo = read_photo(tmp_path / "a.png")
    for name in ["b.tif", "c.png", "d.tif"]:  # each is written from the previous one
        assert write_photo(photo, photo.rgb, tmp_path / name) == ()
        photo = read_photo(tmp_path / name)
        assert np.array_equal(np.rint(photo.rgb * 65535), pixels)
        assert photo.metadata.icc_profile == SRGB
        tags = Image.Exif()
        tags.load(photo.metadata.exif or b"")
        assert (tags[271], tags[274], tags.get_ifd(EXIF_IFD)[MAKER_NOTE]) == ("maker", 1, b"note")


def test_transparent_colours(tmp_path: Path) -> None:
    Image.fromarray(noise(6, 6, 3)).quantize(8).save(tmp_path / "p.png", transparency=2)
    Image.fromarray(noise(6, 6)).save(tmp_path / "l.png", transparency=int(noise(6, 6)[1, 1]))
    for name in ["p.png", "l.png"]:
        alpha = read_photo(tmp_path / name).alpha
        expected = np.asarray(Image.open(tmp_path / name).convert("RGBA"))[..., 3]
        assert np.array_equal(alpha, expected) and not expected.all()
    for channels in [1, 3]:
        pixels = noise(4, 6, channels, dtype=np.uint16)
        key = (b"tRNS", pixels[1, 2].astype(">u2").tobytes())
        (tmp_path / "a.png").write_bytes(png16(pixels, key))
        alpha = read_photo(tmp_path / "a.png").alpha
        assert (alpha[1, 2], (alpha == 65535).sum()) == (0, 23)


def test_cmyk_and_frames_are_noted(tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8, 4), "CMYK").save(tmp_path / "a.jpg", icc_profile=b"cmyk profile")
    photo = read_photo(tmp_path / "a.jpg")
    assert (
        photo.rgb.shape == (8, 8, 3)
        and photo.metadata.icc_profile is None
        and "CMYK" in photo.notes[0]
    )
    frames = [Image.fromarray(noise(8, 8, 3) // n) for n in (1, 2)]
    for name in ["a.webp", "a.tif", "a.png"]:
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        photo = read_photo(tmp_path / name)
        assert photo.rgb.mean() > 0.4
        assert "2 images" in photo.notes[0]


def test_what_a_format_does_not_support_is_noted(tmp_path: Path) -> None:
    deep = photo_of(bits=16)
    notes = write_photo(deep, deep.rgb, tmp_path / "a.jpg")
    assert [n.split()[0] for n in notes] == ["16", "transparency"]
    assert len(write_photo(deep, deep.rgb, tmp_path / "a.webp")) == 1
    assert np.array_equal(read_photo(tmp_path / "a.webp").alpha, np.rint(deep.alpha / 257))
    grey = photo_of(grey=True, metadata=Metadata(bytes(16) + b"GRAY", b"Exif\0\0" + bytes(70000)))
    assert "grey" in write_photo(grey, grey.rgb, tmp_path / "b.webp")[0]
    assert "EXIF" in write_photo(grey, grey.rgb, tmp_path / "b.jpg")[-1]
    assert Image.open(tmp_path / "b.jpg").mode == "L"


def test_values_are_clipped_rounded_and_averaged(tmp_path: Path) -> None:
    rgb = np.array([[[-1, 0, 2], [0.4 / 255, 0.6 / 255, 1], [0, 1, 1]]], np.float32)
    colour, mean = [[0, 0, 255], [0, 1, 255], [0, 255, 255]], [85, 85, 170]
    for grey, expected in [(False, colour), (True, mean)]:
        write_photo(photo_of(rgb=rgb, alpha=None, grey=grey), rgb, tmp_path / "a.png")
        assert np.asarray(Image.open(tmp_path / "a.png"))[0].tolist() == expected


BROKEN = {"missing": "No such file", "folder": "irectory", "empty": "empty", "bomb": "GB of memory"}
BROKEN |= dict.fromkeys(["text", "gif", "no width"], "not a readable PNG")
BROKEN |= dict.fromkeys(["F", "I", "LAB"], "not supported")
BROKEN |= dict.fromkeys(["16-bit", "png", "jpg", "webp", "tif"], "damaged")


@pytest.mark.parametrize("kind", BROKEN)
def test_unreadable(tmp_path: Path, kind: str, capfd: Any, monkeypatch: Any) -> None:
    path = tmp_path / f"a.{kind}"
    deep, image = png16(noise(40, 40, 3, dtype=np.uint16)), Image.fromarray(noise(40, 40, 3))
    if kind in ("F", "I", "LAB"):
        Image.new(kind, (4, 4)).save(path, "TIFF")
    elif kind in ("png", "jpg", "webp", "tif", "gif"):
        image.save(path)
        path.write_bytes(path.read_bytes()[: -1000 if kind != "gif" else None])
    elif kind == "folder":
        path.mkdir()
    elif kind == "bomb":
        image.save(path, "PNG")
        monkeypatch.setattr(photo_memory, "free_memory", lambda: 40 * 40 * 20)
    elif kind != "missing":
        head = deep[12:16] + bytes(4) + deep[20:29]
        no_width = deep[:12] + head + struct.pack(">I", zlib.crc32(head)) + deep[33:]
        kinds = {"empty": b"", "text": b"text\n", "16-bit": deep[:5000], "no width": no_width}
        path.write_bytes(kinds[kind])
    with pytest.raises(DeblurExportError, match=BROKEN[kind]) as caught:
        read_photo(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert (capfd.readouterr(), str(caught.value).count("\n")) == (("", ""), 0)


@pytest.mark.parametrize(
    ("name", "shape", "value", "says"),
    [
        ("a.gif", (8, 8, 3), 0, "suffix"),
        ("a.png", (8, 9, 3), 0, "the photo"),
        ("a.png", (8, 8, 3), np.nan, "NaN"),
        ("a.webp", (1, 16384, 3), 0, "16383"),
        ("file/a.png", (8, 8, 3), 0, "not a folder"),
    ],
)
def test_refused(tmp_path: Path, name: str, shape: Any, value: float, says: str) -> None:
    (tmp_path / "file").touch()
    rgb = np.full(shape, value, np.float32)
    photo = photo_of(rgb=rgb, alpha=None) if ".webp" in name else photo_of()
    with pytest.raises(DeblurExportError, match=says) as caught:
        write_photo(photo, rgb, tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
