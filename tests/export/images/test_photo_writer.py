"""What is written is not worse than what was computed: fineness of storing, metadata, memory."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, JpegImagePlugin, PngImagePlugin

from deblur_export.errors import DeblurExportError
from deblur_export.export.images import transparency
from deblur_export.export.images.photo_file import read_photo
from deblur_export.export.images.photo_metadata import png_chunk, png_chunks
from deblur_export.export.images.photo_writer import write_photo
from tests import needs

XMP = b"<x:xmpmeta><rdf:Description tiff:Orientation='%d' dc:title='cat'/></x:xmpmeta>"
IPTC = b"\x1c\x02\x50\x00\x05a cat"  # a by-line


def red_on_blue() -> Image.Image:
    image = Image.new("RGB", (160, 60), (0, 0, 255))
    for row in range(3):
        ImageDraw.Draw(image).text((8, 6 + 18 * row), "Red text on blue 0123", fill=(255, 0, 0))
    return image


def psnr(one: Any, other: Any) -> float:
    error = np.mean(np.square(np.asarray(one, float) - np.asarray(other, float)))
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def copied(source: Path, target: Path, quality: int | None = None) -> tuple[float, tuple[str, ...]]:
    """Write a photo without a change; returns the PSNR of what was written, and the notes."""
    photo = read_photo(source)
    notes = write_photo(photo, photo.rgb, target, quality)
    with Image.open(target) as back:
        return psnr(np.rint(photo.rgb * 255), back.convert("RGB")), notes


def test_colours_of_a_jpeg_keep_their_sampling(tmp_path: Path) -> None:
    """With 4:2:0 and quality 95, red text on blue is at 18 dB."""
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        source = tmp_path / f"{name}.jpg"
        red_on_blue().save(source, quality=92, subsampling=sampling)
        found, notes = copied(source, tmp_path / "out.jpg")
        with Image.open(tmp_path / "out.jpg") as back:
            assert JpegImagePlugin.get_sampling(back) == sampling
        assert notes == ()
        assert found > (38 if sampling == 0 else 28)
    for name in ("a.png", "a.webp"):  # nothing was subsampled, so nothing is
        red_on_blue().save(tmp_path / name, lossless=True)
        assert copied(tmp_path / name, tmp_path / "out.jpg")[0] > 38


@pytest.mark.parametrize("quality", [40, 95, 100])
def test_a_jpeg_is_quantized_no_more_coarsely_than_its_source(tmp_path: Path, quality: int) -> None:
    red_on_blue().save(tmp_path / "a.jpg", quality=quality, subsampling=0)
    copied(tmp_path / "a.jpg", tmp_path / "b.jpg")
    copied(tmp_path / "a.jpg", tmp_path / "c.jpg", quality=50)
    red_on_blue().save(tmp_path / "95.jpg", quality=95)
    red_on_blue().save(tmp_path / "50.jpg", quality=50)
    tables = {p.stem: Image.open(p).quantization for p in tmp_path.glob("*.jpg")}
    for number in (0, 1):
        finest = np.minimum(tables["a"][number], tables["95"][number])
        assert np.array_equal(tables["b"][number], finest)
        assert tables["c"][number] == tables["50"][number]
    sizes = {path.stem: path.stat().st_size for path in tmp_path.glob("*.jpg")}
    assert sizes["c"] < sizes["b"]


def test_grey_and_cmyk_jpeg(tmp_path: Path) -> None:
    red_on_blue().convert("L").save(tmp_path / "l.jpg", quality=99)
    assert copied(tmp_path / "l.jpg", tmp_path / "m.jpg")[0] > 55
    red_on_blue().convert("CMYK").save(tmp_path / "c.jpg", quality=70)
    assert copied(tmp_path / "c.jpg", tmp_path / "d.jpg")[0] > 38


def test_lossless_stays_lossless(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8)
    pixels[:9, :9, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exact=True)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    frames = [Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())]
    frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:], lossless=True)
    for name in ("a.webp", "a.png"):
        assert copied(tmp_path / name, tmp_path / "b.webp") == (float("inf"), ())
        with Image.open(tmp_path / "b.webp") as back:  # colours that nobody sees too
            assert np.array_equal(np.asarray(back), pixels)
    assert read_photo(tmp_path / "film.webp").encoding.lossless
    found, notes = copied(tmp_path / "a.webp", tmp_path / "b.webp", quality=80)
    assert found < 40 and "half the photo's resolution" in notes[0]
    red_on_blue().save(tmp_path / "lossy.webp", quality=90)
    assert not read_photo(tmp_path / "lossy.webp").encoding.lossless
    assert copied(tmp_path / "lossy.webp", tmp_path / "b.webp")[1] == ()
    red_on_blue().save(tmp_path / "lossy.tif", compression="jpeg")
    assert not read_photo(tmp_path / "lossy.tif").encoding.lossless


CHUNKS = {
    b"gAMA": struct.pack(">I", 100000),
    b"cICP": bytes([9, 16, 0, 1]),
    b"cHRM": struct.pack(">8I", *range(31000, 39000, 1000)),
    b"cLLI": struct.pack(">II", 1000, 400),
    b"pHYs": struct.pack(">IIB", 11811, 5906, 1),
    b"tEXt": b"Title\0a cat",
    b"iTXt": b"Author\0\0\0\0\0J. Doe",
}


def png_with(path: Path, deep: bool, *others: tuple[bytes, bytes]) -> Path:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    if deep:
        import cv2

        buffer.write(cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes())
    else:
        Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    extra = b"".join(png_chunk(*chunk) for chunk in (*CHUNKS.items(), *others))
    path.write_bytes(data[:33] + extra + data[33:])
    return path


@pytest.mark.parametrize("deep", [False, True])
def test_chunks_of_a_png_are_kept(tmp_path: Path, deep: bool) -> None:
    source = png_with(tmp_path / "a.png", deep, (b"tIME", bytes(7)), (b"vpAg", bytes(9)))
    photo = read_photo(source)
    assert photo.notes == ("PNG chunks dropped: vpAg",)
    assert write_photo(photo, photo.rgb, tmp_path / "b.png") == ()
    written = dict(png_chunks((tmp_path / "b.png").read_bytes()))
    assert {name: written[name] for name in CHUNKS} == CHUNKS
    assert b"tIME" not in written and b"vpAg" not in written
    with Image.open(tmp_path / "b.png") as back:
        back.load()
        assert (back.info["gamma"], back.text["Title"]) == (1.0, "a cat")
    assert np.array_equal(read_photo(tmp_path / "b.png").rgb, photo.rgb)


def test_what_other_formats_cannot_hold_is_noted(tmp_path: Path) -> None:
    photo = read_photo(png_with(tmp_path / "a.png", False))
    for name in ("b.jpg", "b.webp", "b.tif"):
        (note,) = write_photo(photo, photo.rgb, tmp_path / name)
        for word in ("gAMA", "cICP", "cHRM", "cLLI", "texts"):
            assert word in note
        assert ("resolution" in note) == (name == "b.webp")
    for name in ("b.jpg", "b.tif"):
        with Image.open(tmp_path / name) as back:
            assert tuple(map(round, back.info["dpi"])) == (300, 150)
    plain = red_on_blue()
    info = PngImagePlugin.PngInfo()
    info.add(b"sRGB", b"\0")
    info.add(b"gAMA", struct.pack(">I", 45455))
    plain.save(tmp_path / "srgb.png", pnginfo=info)
    assert copied(tmp_path / "srgb.png", tmp_path / "c.jpg")[1] == ()


def test_metadata_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.update({274: 6, 271: "maker"})
    block = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    body = b"Photoshop 3.0\0" + block
    red_on_blue().save(
        tmp_path / "a.jpg",
        exif=exif,
        xmp=XMP % 6,
        comment=b"a comment",
        dpi=(300, 150),
        extra=b"\xff\xed" + struct.pack(">H", len(body) + 2) + body,
    )
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.rgb.shape == (160, 60, 3)  # orientation 6
    assert write_photo(photo, photo.rgb, tmp_path / "b.jpg") == ()
    with Image.open(tmp_path / "b.jpg") as back:
        assert back.info["comment"] == b"a comment"
        assert back.info["xmp"] == XMP % 1
        assert (back.info["jfif_unit"], back.info["jfif_density"]) == (1, (150, 300))
        assert back.info["photoshop"][0x0404] == IPTC
        assert back.getexif()[271] == "maker"
    for name in ("b.png", "b.webp", "b.tif"):
        (note,) = write_photo(photo, photo.rgb, tmp_path / name)
        assert "IPTC" in note and ("comment" in note) == (name != "b.png")
        with Image.open(tmp_path / name) as back:
            back.load()
            assert back.info["xmp"] == XMP % 1
            assert back.getexif()[271] == "maker"
    with Image.open(tmp_path / "b.png") as back:
        assert back.text["Comment"] == "a comment"
        assert tuple(map(round, back.info["dpi"])) == (150, 300)
        again = read_photo(tmp_path / "b.png")
        write_photo(again, again.rgb, tmp_path / "c.tif")
        assert read_photo(tmp_path / "c.tif").metadata.xmp == XMP % 1


def test_densities_without_a_unit_or_per_centimetre(tmp_path: Path) -> None:
    red_on_blue().save(tmp_path / "a.jpg")
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    for unit, x, y in ((0, 3, 2), (2, 118, 59)):
        data[13:18] = struct.pack(">BHH", unit, x, y)
        (tmp_path / "a.jpg").write_bytes(data)
        for name in ("b.jpg", "b.png"):
            assert copied(tmp_path / "a.jpg", tmp_path / name)[1] == ()
        assert (tmp_path / "b.jpg").read_bytes()[13:18] == bytes(data[13:18])
        copied(tmp_path / "b.png", tmp_path / "c.jpg")
        with Image.open(tmp_path / "c.jpg") as back:
            inch = (3, 2) if unit == 0 else (300, 150)
            assert back.info["jfif_density"] == inch


def test_a_stale_exif_text_does_not_turn_the_photo_twice(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    raw = exif.tobytes()
    text = f"\nexif\n{len(raw):8}\n{raw.hex()}\n".encode()
    chunk = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    photo = read_photo(png_with(tmp_path / "a.png", False, chunk))
    assert photo.rgb.shape == (8, 6, 3)
    write_photo(photo, photo.rgb, tmp_path / "b.png")
    assert read_photo(tmp_path / "b.png").rgb.shape == (8, 6, 3)


def test_200_megapixels(tmp_path: Path) -> None:
    """Pillow's own limit is 179; a white bitmap of that size is a few kilobytes."""
    path = tmp_path / "scan.png"
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        Image.new("1", (16000, 12000)).save(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    from deblur_export import photo_memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_memory, "free_memory", lambda: 2_000_000_000)
        with pytest.raises(DeblurExportError, match=r"16000x12000 pixels need about 5\.8 GB"):
            read_photo(path)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(("dtype", "says"), [("float32", "32-bit floating"), ("float16", "16-bit")])
def test_floating_point_tiff_is_refused_for_what_it_is(
    tmp_path: Path, dtype: str, says: str
) -> None:
    pixels = np.zeros((5, 6, 3), dtype)
    needs.TIFFFILE.load().imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    with pytest.raises(DeblurExportError, match=f"{says}.* samples .* not supported"):
        read_photo(tmp_path / "a.tif")


def test_a_file_of_the_finder_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\x16\7" + bytes(4092))
    with pytest.raises(DeblurExportError, match=r"not a photo: macOS keeps attributes .* a\.jpg"):
        read_photo(tmp_path / "._a.jpg")


def test_hidden_colours_are_those_of_the_nearest_visible_pixel() -> None:
    rgb = np.random.default_rng(0).random((7, 9, 3), np.float32)
    alpha = np.full((7, 9), 255, np.uint8)
    assert transparency.hidden_pixels(None) is None
    assert transparency.hidden_pixels(alpha) is None
    assert transparency.hidden_pixels(np.zeros_like(alpha)) is None
    alpha[:, 4:] = 0
    alpha[0, 0] = 1
    hidden = transparency.hidden_pixels(alpha)
    assert hidden is not None
    result = transparency.filled(rgb, hidden)
    assert np.array_equal(result[:, :4], rgb[:, :4])
    assert np.array_equal(result[:, 4:], np.repeat(rgb[:, 3:4], 5, axis=1))
