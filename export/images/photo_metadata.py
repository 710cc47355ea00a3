"""What a photo file says besides its pixels: profile, EXIF, XMP, resolution, texts."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image, TiffImagePlugin

Chunk = tuple[bytes, bytes]  # type and content of a PNG chunk

_ORIENTATION = int(ExifTags.Base.Orientation)
_EXIF_IFDS = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
_INTEROP = int(ExifTags.IFD.Interop)
# EXIF tags of the main directory that describe the photo. The others describe how a file stores its
# pixels (strips of a TIFF, ImageWidth of a phone) and would be wrong in another file.
_DESCRIPTIVE = {269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, 50341}
_DESCRIPTIVE |= set(range(40091, 40096))
_IPTC_TAGS = (33723, 34377)
_IPTC = 0x0404  # its number among Photoshop's image resources

# PNG chunks that are true of the restored image too, in the order of the specification.
COLOUR_CHUNKS = (b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi", b"gAMA", b"cHRM", b"sRGB")
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Read elsewhere, or about the stored pixels and the moment of storing.
_OTHER_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"sBIT"}
_OTHER_CHUNKS |= {b"bKGD", b"hIST", b"tIME", b"sPLT", b"acTL", b"fcTL", b"fdAT"}
# They say that the image is sRGB, as images without them are taken to be.
_SRGB = {
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
}
_XMP_KEY = b"XML:com.adobe.xmp"
_EXIF_AS_TEXT = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[1-8]")
# What XMP says of the size, and of the part of a panorama that the photo is, in pixels.
_XMP_SIZE = {
    axis: re.compile(rb"((?:exif:Pixel%sDimension|tiff:Image%s)(?:=[\"']|>)\s*)\d+" % names)
    for axis, names in (("width", (b"X", b"Width")), ("height", (b"Y", b"Length")))
}
_XMP_PANORAMA = re.compile(rb"(GPano:(?:Cropped|Full)\w+Pixels(?:=[\"']|>)\s*)(\d+)")
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003  # EXIF tags
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/"


@dataclass(frozen=True)
class Density:
    """Pixels per `metres` along both axes; only their ratio is known if that is None."""

    x: int
    y: int
    metres: float | None

    def per(self, metres: float) -> tuple[int, int]:
        """Rounded pixels per length."""
        factor = metres / (self.metres or metres)
        return round(self.x * factor), round(self.y * factor)


INCH, METRE = 0.0254, 1.0
_JFIF_UNITS = {0: None, 1: INCH, 2: 0.01}


@dataclass(frozen=True)
class Metadata:
    """Metadata of a photo as they are true of its restored image.

    Attributes:
        icc_profile: colour profile.
        exif: EXIF block with orientation 1.
        xmp: XMP packet with orientation 1.
        density: resolution.
        comment: of a JPEG file.
        iptc: IPTC records of a JPEG file.
        chunks: of a PNG file: colour spaces and texts.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    density: Density | None = None
    comment: bytes | None = None
    iptc: bytes | None = None
    chunks: tuple[Chunk, ...] = ()

    def sized(self, width: int, height: int, scale: int = 1) -> Metadata:
        """The same of an image of this size in pixels, `scale` times that of the photo. The
        resolution stays: an enlarged image prints larger."""
        xmp = self.xmp
        if xmp is not None:
            for axis, size in (("width", width), ("height", height)):
                xmp = _XMP_SIZE[axis].sub(rb"\g<1>%d" % size, xmp)
            xmp = _XMP_PANORAMA.sub(lambda m: m[1] + b"%d" % (scale * int(m[2])), xmp)
        return replace(self, exif=_sized_exif(self.exif, width, height), xmp=xmp)

    def colour_chunks(self) -> list[Chunk]:
        return [chunk for chunk in self.chunks if chunk[0] in COLOUR_CHUNKS]

    def beyond_srgb(self) -> list[str]:
        """Names of the chunks that say that colours are not those of sRGB."""
        return [
            name.decode()
            for name, body in self.colour_chunks()
            if name != b"sRGB" and _SRGB.get(name) != body
        ]

    def texts(self) -> list[Chunk]:
        return [chunk for chunk in self.chunks if chunk[0] in TEXT_CHUNKS]


def read_metadata(image: Image.Image, data: bytes, notes: list[str]) -> tuple[Metadata, int]:
    """The metadata of a decoded file, and the orientation that is still to be applied.

    Args:
        image: an opened file whose pixels are loaded.
        data: its bytes.
        notes: receives what cannot be kept, one line each.
    """
    exif, orientation = _exif(image, notes)
    icc, xmp = image.info.get("icc_profile"), image.info.get("xmp")
    found = Metadata(
        icc_profile=icc if icc and isinstance(icc, bytes) and image.mode != "CMYK" else None,
        exif=exif,
        xmp=_XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) and xmp else None,
    )
    if image.format == "PNG":
        found = _of_png(found, data, notes)
    elif image.format in ("JPEG", "MPO"):
        found = _of_jpeg(found, image, data, notes)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        found = replace(found, density=_tiff_density(image))
        if any(tag in image.tag_v2 for tag in _IPTC_TAGS):
            notes.append("IPTC data dropped")
    if found.density is not None and orientation in (5, 6, 7, 8):
        turned = Density(found.density.y, found.density.x, found.density.metres)
        found = replace(found, density=turned)
    return found, orientation if isinstance(orientation, int) else 1


def _exif(image: Image.Image, notes: list[str]) -> tuple[bytes | None, int]:
    """The descriptive part of the EXIF block, and the orientation that is still to be applied.

    Pillow and OpenCV both apply the orientation of TIFF images while they decode; Pillow then
    removes the tag.
    """
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        descriptive = Image.Exif()
        descriptive.update({tag: value for tag, value in exif.items() if tag in _DESCRIPTIVE})
        for pointer in _EXIF_IFDS:
            tags = {k: v for k, v in exif.get_ifd(pointer).items() if k != _INTEROP}
            if tags:
                descriptive[pointer] = tags
        if not descriptive:
            return None, orientation
        descriptive[_ORIENTATION] = 1
        return descriptive.tobytes(), orientation
    except Exception:  # a damaged block is no reason to refuse the photo
        notes.append("the EXIF data is damaged and was dropped")
        return None, orientation


def _sized_exif(data: bytes | None, width: int, height: int) -> bytes | None:
    """An EXIF block of ours with the size of another image where it says one."""
    if data is None:
        return None
    exif = Image.Exif()
    exif.load(data)
    tags = exif.get_ifd(_EXIF_IFDS[0])
    wanted = {_PIXEL_WIDTH: width, _PIXEL_HEIGHT: height}
    if all(tags.get(tag, size) == size for tag, size in wanted.items()):
        return data
    tags.update({tag: size for tag, size in wanted.items() if tag in tags})
    return exif.tobytes()


def _of_png(found: Metadata, data: bytes, notes: list[str]) -> Metadata:
    chunks, density, unknown = list[Chunk](), None, list[str]()
    for name, body in png_chunks(data):
        if name == b"pHYs" and len(body) == 9:
            x, y, unit = struct.unpack(">IIB", body)
            density = Density(x, y, METRE if unit == 1 else None) if x and y else None
        elif name in TEXT_CHUNKS:
            if not body.startswith((_XMP_KEY + b"\0", *_EXIF_AS_TEXT)):
                chunks.append((name, body))
        elif name in COLOUR_CHUNKS:
            chunks.append((name, body))
        elif name not in _OTHER_CHUNKS and name.isalpha():
            unknown.append(name.decode())
    if unknown:
        notes.append(f"PNG chunks dropped: {', '.join(dict.fromkeys(unknown))}")
    return replace(found, density=density, chunks=tuple(chunks))


def png_chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG file up to the first that is cut short."""
    start = 8
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        if start + 12 + length > len(data):
            return
        yield data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        start += 12 + length


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk as it stands in a file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def xmp_chunk(xmp: bytes) -> Chunk:
    """The PNG chunk of an XMP packet, not compressed."""
    return b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + xmp


def iptc_segment(iptc: bytes) -> bytes:
    """The JPEG segment of IPTC records, as Photoshop writes it; empty if they are too long."""
    block = b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    body = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body if len(body) < 65534 else b""


def _of_jpeg(found: Metadata, image: Image.Image, data: bytes, notes: list[str]) -> Metadata:
    unit = image.info.get("jfif_unit")
    x, y = image.info.get("jfif_density") or (0, 0)
    density = Density(x, y, _JFIF_UNITS[unit]) if unit in _JFIF_UNITS and x and y else None
    if density == Density(1, 1, None):  # says nothing
        density = None
    if _EXTENDED_XMP in data:
        notes.append("XMP data beyond 64 kB dropped")
    resources: Any = image.info.get("photoshop") or {}
    iptc = resources.get(_IPTC) if isinstance(resources, dict) else None
    comment = image.info.get("comment")
    return replace(
        found,
        density=density,
        comment=comment if isinstance(comment, bytes) and comment else None,
        iptc=iptc if isinstance(iptc, bytes) and iptc else None,
    )


def _tiff_density(image: TiffImagePlugin.TiffImageFile) -> Density | None:
    try:
        x, y = round(float(image.tag_v2[282])), round(float(image.tag_v2[283]))
        metres = {2: INCH, 3: 0.01}.get(image.tag_v2.get(296, 2))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return Density(x, y, metres) if x > 0 and y > 0 else None
