"""How finely a photo is stored, so that its restored image is not stored more coarsely."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin

QUALITY = 95  # the least of a restored JPEG, and that of a WebP, unless another is asked for
FULL_COLOUR, HALF_COLOUR = 0, 2  # Pillow's numbers of 4:4:4 and 4:2:0
_LOSSY_TIFF = ("jpeg", "webp")
Tables = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Encoding:
    """How the samples of a file are stored.

    Attributes:
        lossless: whether the file holds all samples exactly.
        tables: quantization tables of a JPEG file, one per component, 64 values each.
        sampling: of the colours of a JPEG file, Pillow's number: 0 for 4:4:4, 1 for 4:2:2, 2 for
            4:2:0.
    """

    lossless: bool = True
    tables: Tables = ()
    sampling: int = FULL_COLOUR


def encoding_of(image: Image.Image, data: bytes) -> Encoding:
    """How an opened file with the bytes `data` stores its samples."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        if image.mode not in ("L", "RGB"):
            return Encoding(lossless=False)
        # Kinds that Pillow cannot write (4:1:1, 4:4:0) become 4:4:4, which loses nothing.
        sampling = max(JpegImagePlugin.get_sampling(image), FULL_COLOUR)
        layers: Any = image.layer
        tables = tuple(tuple(image.quantization[layer[3]]) for layer in layers)
        return Encoding(False, tables, sampling)
    if image.format == "WEBP":
        lossless = _is_lossless_webp(data)
        return Encoding(lossless, sampling=FULL_COLOUR if lossless else HALF_COLOUR)
    lossy = image.info.get("compression") in _LOSSY_TIFF
    return Encoding(lossless=not (lossy and isinstance(image, TiffImagePlugin.TiffImageFile)))


def jpeg_options(encoding: Encoding, channels: int, quality: int | None) -> dict[str, Any]:
    """Pillow's options for a JPEG file: the sampling of the source, and its quantization tables
    where they are finer than those of QUALITY. A `quality` replaces the tables."""
    sampling = encoding.sampling if encoding.tables else FULL_COLOUR
    if quality is not None or len(encoding.tables) != channels:
        return {"quality": quality or QUALITY, "subsampling": sampling}
    usual = _usual_tables()
    finest = [
        np.minimum(table, usual[min(number, 1)]).tolist()
        for number, table in enumerate(encoding.tables)
    ]
    if finest[1:2] == finest[2:]:  # both colours have the same table
        finest = finest[:2]
    return {"qtables": finest, "subsampling": sampling}  # a quality would scale the tables


def webp_options(encoding: Encoding, quality: int | None) -> dict[str, Any]:
    """Pillow's options for a WebP file: lossless as the source is, unless a quality is asked for.
    Colours under full transparency are kept."""
    if quality is None and encoding.lossless:
        return {"lossless": True, "exact": True}
    return {"quality": quality or QUALITY}


def halves_colours(encoding: Encoding, grey: bool, quality: int | None) -> bool:
    """Whether a WebP file stores colours more coarsely than the source does."""
    lossy = "quality" in webp_options(encoding, quality)
    return lossy and not grey and (encoding.lossless or encoding.sampling < HALF_COLOUR)


@cache
def _usual_tables() -> Tables:
    """The tables of QUALITY for brightness and colours."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=QUALITY)
    with Image.open(buffer) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return tuple(tuple(image.quantization[number]) for number in (0, 1))


def _is_lossless_webp(data: bytes) -> bool:
    kinds = set(_webp_chunks(data, 12))
    return b"VP8L" in kinds and b"VP8 " not in kinds


def _webp_chunks(data: bytes, start: int) -> Iterator[bytes]:
    """Types of the chunks of a WebP file, those inside of animation frames too."""
    while start + 8 <= len(data):
        name, (length,) = data[start : start + 4], struct.unpack_from("<I", data, start + 4)
        yield name
        start += 24 if name == b"ANMF" else 8 + length + length % 2
