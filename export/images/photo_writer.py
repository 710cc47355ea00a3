"""Write restored photos as the originals are stored, in the formats of `image_formats`."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.photo_encoding import halves_colours, jpeg_options, webp_options
from deblur_export.export.images.photo_file import Photo, Samples
from deblur_export.export.images.photo_metadata import (
    INCH,
    METRE,
    Metadata,
    iptc_segment,
    png_chunk,
    xmp_chunk,
)
from deblur_export.image_formats import BY_SUFFIX, SUFFIXES, ImageFormat
from deblur_export.precision import OVERFLOW_ADVICE

ROWS = 256  # converted at a time, for the sake of memory
# TIFF tags
_BITS, _PHOTOMETRIC, _STRIP_OFFSET, _PLANAR, _EXTRA_SAMPLES, _ICC = 258, 262, 273, 284, 338, 34675
_XMP = 700
_PNG_HEAD = 33  # bytes up to the end of IHDR
_JFIF_DENSITY = slice(13, 18)  # where a JFIF file has unit, x and y
_LARGEST_SEGMENT = 65533  # bytes of a JPEG segment
_LARGEST_XMP = _LARGEST_SEGMENT - 29


def write_photo(
    photo: Photo, rgb: NDArray[np.float32], path: Path, quality: int | None = None
) -> tuple[str, ...]:
    """Write a restored photo in the way in which the original is stored.

    Bit depth, greyscale (the mean of the channels), alpha and metadata are those of `photo`, as far
    as the format supports them. A lossless photo stays lossless, in WebP too. A JPEG file has the
    colour sampling of a JPEG original and is quantized at least as finely as that, and at least
    with quality 95.

    Args:
        photo: the original.
        rgb: the restored image, float32 [H, W, 3], clipped to 0..1.
        path: the file to write; its suffix gives the format.
        quality: of JPEG and WebP, 1..100, in place of that; other formats have none.

    Returns:
        What the format does not support, one line each.

    Raises:
        DeblurExportError: the suffix is unknown, `rgb` has another size than the photo or contains
            NaN or infinity, the image is too large for the format, or the file cannot be written.
            An existing file is then not changed.
    """
    kind = BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise DeblurExportError(
            f"{path}: unknown suffix '{path.suffix}'; use one of {', '.join(SUFFIXES)}"
        )
    if rgb.shape != photo.rgb.shape:
        raise DeblurExportError(
            f"{path}: the restored image has shape {list(rgb.shape)}, the photo "
            f"{list(photo.rgb.shape)}"
        )
    if not all(np.isfinite(rgb[start : start + ROWS]).all() for start in range(0, len(rgb), ROWS)):
        raise DeblurExportError(
            f"{path}: not written: the restored image contains NaN or infinity; if the file is in "
            f"a narrow precision, {OVERFLOW_ADVICE}"
        )
    side = max(rgb.shape[:2])
    if kind.largest_side is not None and side > kind.largest_side:
        raise DeblurExportError(
            f"{path}: {side} pixels are more than the {kind.largest_side} that {kind.name} "
            "supports; write .png or .tif"
        )
    notes: list[str] = []
    if kind.name == "WEBP" and halves_colours(photo.encoding, photo.grey, quality):
        notes.append(
            "WebP with losses stores colours at half the photo's resolution; write .png, or .jpg "
            "to keep it"
        )
    samples = _samples(photo, rgb, kind, notes)
    metadata = _supported(photo.metadata, kind, notes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd entries of EXIF blocks
            data = _ENCODERS[kind.name](photo, samples, metadata, quality)
    except (OSError, ValueError, struct.error) as exc:
        raise DeblurExportError(f"{path}: cannot be written as {kind.name}: {exc}") from exc
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return tuple(notes)


def _samples(
    photo: Photo, rgb: NDArray[np.float32], kind: ImageFormat, notes: list[str]
) -> Samples:
    """Convert to samples [H, W, 1..4], uint8 or uint16, that the format supports."""
    dtype: type[np.unsignedinteger[Any]] = np.uint8
    if photo.bits == 16:
        if kind.bits == 16:
            dtype = np.uint16
        else:
            notes.append(f"16 bits reduced to 8: {kind.name} does not support more")
    alpha = photo.alpha
    if alpha is not None and not kind.alpha:
        notes.append(
            f"transparency dropped: {kind.name} does not support it; write .png to keep it"
        )
        alpha = None
    # Many programs, such as Pillow, cannot read 16-bit grey with alpha in TIFF files.
    pair = alpha is not None and kind.name == "TIFF" and dtype is np.uint16
    grey = photo.grey and not pair
    channels = 1 if grey else 3
    samples: Samples = np.empty((*rgb.shape[:2], channels + (alpha is not None)), dtype)
    top = np.float32(np.iinfo(dtype).max)
    for start in range(0, len(rgb), ROWS):
        rows = slice(start, start + ROWS)
        colours = rgb[rows].mean(axis=2, keepdims=True) if photo.grey else rgb[rows]
        samples[rows, :, :channels] = np.rint(np.clip(colours, 0, 1) * top)
        if alpha is not None:
            factor = np.float32(1 if alpha.dtype == dtype else 257)
            samples[rows, :, channels] = np.rint(alpha[rows] / factor)
    return samples


def _supported(found: Metadata, kind: ImageFormat, notes: list[str]) -> Metadata:
    """What of the metadata the format supports; the rest is noted."""
    icc, dropped = found.icc_profile, list[str]()
    if not kind.grey_profile and icc is not None and icc[16:20] == b"GRAY":
        notes.append(f"grey colour profile dropped: {kind.name} supports RGB only")
        found = replace(found, icc_profile=None)
    if kind.largest_exif is not None and len(found.exif or b"") > kind.largest_exif:
        notes.append(f"EXIF data dropped: too long for {kind.name}")
        found = replace(found, exif=None)
    if kind.name == "JPEG" and len(found.xmp or b"") > _LARGEST_XMP:
        notes.append("XMP data dropped: too long for JPEG")
        found = replace(found, xmp=None)
    if kind.name == "JPEG" and found.iptc is not None and not iptc_segment(found.iptc):
        dropped.append("IPTC data")
    if kind.name != "PNG":
        dropped += found.beyond_srgb()
        dropped += ["texts"] if found.texts() else []
    if kind.name not in ("PNG", "JPEG"):
        dropped += ["comment"] if found.comment else []
    if kind.name != "JPEG":
        dropped += ["IPTC data"] if found.iptc else []
    if kind.name == "WEBP":
        dropped += ["resolution"] if found.density is not None else []
    if dropped:
        notes.append(f"dropped, because {kind.name} files of ours have no place for it: ")
        notes[-1] += ", ".join(dropped)
    return found


def _encode_png(photo: Photo, samples: Samples, found: Metadata, quality: int | None) -> bytes:
    chunks = found.colour_chunks()
    if found.icc_profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(found.icc_profile)))
    if found.density is not None:
        unit = 0 if found.density.metres is None else 1
        chunks.append((b"pHYs", struct.pack(">IIB", *found.density.per(METRE), unit)))
    if found.exif:
        chunks.append((b"eXIf", found.exif.removeprefix(b"Exif\0\0")))
    if found.xmp:
        chunks.append(xmp_chunk(found.xmp))
    if found.comment:
        text = found.comment.rstrip(b"\0").replace(b"\0", b" ")
        chunks.append((b"tEXt", b"Comment\0" + text))
    chunks += found.texts()
    data = _png16(samples) if samples.dtype == np.uint16 else _by_pillow(samples, "PNG")
    extra = b"".join(png_chunk(name, body) for name, body in chunks)
    return data[:_PNG_HEAD] + extra + data[_PNG_HEAD:]


def _encode_jpeg(photo: Photo, samples: Samples, found: Metadata, quality: int | None) -> bytes:
    options = jpeg_options(photo.encoding, samples.shape[2], quality)
    extra = iptc_segment(found.iptc) if found.iptc else b""
    comment = (found.comment or b"")[:_LARGEST_SEGMENT]
    data = _by_pillow(
        samples, "JPEG", **options, **_blocks(found), extra=extra, comment=comment or None
    )
    if found.density is None or data[6:11] != b"JFIF\0":
        return data
    unit = 0 if found.density.metres is None else 2 if found.density.metres == 0.01 else 1
    length = 0.01 if unit == 2 else INCH
    sizes = [min(max(size, 1), 65535) for size in found.density.per(length)]
    head = bytearray(data[: _JFIF_DENSITY.stop])
    head[_JFIF_DENSITY] = struct.pack(">BHH", unit, *sizes)
    return bytes(head) + data[_JFIF_DENSITY.stop :]


def _encode_webp(photo: Photo, samples: Samples, found: Metadata, quality: int | None) -> bytes:
    options = webp_options(photo.encoding, quality)
    return _by_pillow(samples, "WEBP", **options, **_blocks(found))


def _encode_tiff(photo: Photo, samples: Samples, found: Metadata, quality: int | None) -> bytes:
    tags: dict[int, Any] = {_XMP: found.xmp} if found.xmp else {}
    if found.density is not None:
        x, y = found.density.per(INCH)
        tags |= {282: float(x), 283: float(y), 296: 1 if found.density.metres is None else 2}
    directory = Image.Exif()
    if found.exif:
        directory.load(found.exif)
    directory.update(tags)
    if samples.dtype == np.uint16:
        return _tiff16(samples, found.icc_profile, directory)
    blocks = {"exif": directory.tobytes()} if directory else {}
    return _by_pillow(samples, "TIFF", icc_profile=found.icc_profile, **blocks)


def _blocks(found: Metadata) -> dict[str, bytes]:
    """The blocks that most encoders of Pillow take under the same names."""
    blocks = {"icc_profile": found.icc_profile, "exif": found.exif, "xmp": found.xmp}
    return {name: block for name, block in blocks.items() if block}


def _by_pillow(samples: Samples, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = samples.squeeze(-1) if samples.shape[2] == 1 else samples
    Image.fromarray(pixels).save(buffer, name, **options)
    return buffer.getvalue()


def _png16(samples: Samples) -> bytes:
    """Encode samples uint16 [H, W, 1..4] as a PNG file; Pillow does not write 16-bit colour."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = np.ascontiguousarray(samples, ">u2").view(np.uint8).reshape(height, -1)
    lines = np.full((height, rows.shape[1] + 1), 2, np.uint8)  # filter 2: difference to row above
    lines[:, 1:] = rows
    lines[1:, 1:] -= rows[:-1]
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in chunks)


def _tiff16(samples: Samples, icc: bytes | None, directory: Image.Exif) -> bytes:
    """Encode samples uint16 [H, W, 1, 3 or 4] as an uncompressed TIFF file.

    An EXIF block is a TIFF directory, so Pillow's class for it writes everything except the pixels.
    Pillow counts the offset of the strip from the end of the directory.
    """
    height, width, channels = samples.shape
    directory.update({256: width, 257: height, _BITS: (16,) * channels, 259: 1})
    directory.update({_PHOTOMETRIC: 1 if channels == 1 else 2, _STRIP_OFFSET: 0, 277: channels})
    directory.update({278: height, 279: samples.nbytes, _PLANAR: 1})
    if channels == 4:
        directory[_EXTRA_SAMPLES] = (2,)
    if icc:
        directory[_ICC] = icc
    header = directory.tobytes().removeprefix(b"Exif\0\0")
    order = "<u2" if header[:2] == b"II" else ">u2"
    return header + samples.astype(order).tobytes()


_ENCODERS = {
    "PNG": _encode_png,
    "JPEG": _encode_jpeg,
    "WEBP": _encode_webp,
    "TIFF": _encode_tiff,
}
