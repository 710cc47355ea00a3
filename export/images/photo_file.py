"""Read and write photos in the formats of `image_formats`, with 8 or 16 bits per sample."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.image_formats import BY_SUFFIX, FORMATS, NAMES, SUFFIXES, ImageFormat

Samples = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16

_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}

# EXIF orientation -> (transpose, then flip the rows, flip the columns)
_ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

# TIFF tags that are read or written here
_BITS, _PHOTOMETRIC, _STRIP_OFFSET, _PLANAR, _EXTRA_SAMPLES, _ICC = 258, 262, 273, 284, 338, 34675
_ORIENTATION = int(ExifTags.Base.Orientation)
_EXIF_IFDS = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
_INTEROP = int(ExifTags.IFD.Interop)
# EXIF tags of the main directory that describe the photo. The others describe how a file stores its
# pixels (strips of a TIFF, ImageWidth of a phone) and would be wrong in another file.
_DESCRIPTIVE = {269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, 50341}
_DESCRIPTIVE |= set(range(40091, 40096))


@dataclass(frozen=True)
class Photo:
    """A decoded image file; the EXIF orientation is already applied.

    Attributes:
        rgb: float32 [H, W, 3] in 0..1; greyscale files have three equal channels.
        alpha: [H, W], uint8 or uint16 as in the file, or None.
        bits: 8 or 16 bits per sample in the file.
        grey: whether the file is greyscale.
        icc_profile: colour profile of `rgb`, or None.
        exif: EXIF block with orientation 1, or None.
        format: name of one of `image_formats.FORMATS`.
        notes: notes to the user about the conversion, one line each.
    """

    rgb: NDArray[np.float32]
    alpha: Samples | None
    bits: int
    grey: bool
    icc_profile: bytes | None
    exif: bytes | None
    format: str
    notes: tuple[str, ...]


def read_photo(path: Path) -> Photo:
    """Read an image file: grey, palette, RGB or CMYK, with or without alpha.

    Raises:
        DeblurExportError: the file is missing, a folder, empty, damaged, too large (a decompression
            bomb) or of an unsupported kind (floating point, 32-bit, Lab).
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise DeblurExportError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    if not data:
        raise DeblurExportError(f"{path}: the file is empty (0 bytes); copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large photos and odd EXIF blocks
            with Image.open(io.BytesIO(data), formats=[known.name for known in FORMATS]) as image:
                return _decode(image, data)
    except DeblurExportError as exc:
        raise DeblurExportError(f"{path}: {exc}") from exc
    except UnidentifiedImageError as exc:
        raise DeblurExportError(
            f"{path}: not a readable {NAMES} image, or it is damaged; convert it to PNG"
        ) from exc
    except Image.DecompressionBombError as exc:
        raise DeblurExportError(f"{path}: too many pixels; crop or shrink it: {exc}") from exc
    except Exception as exc:  # decoders raise anything on damaged files
        raise DeblurExportError(
            f"{path}: cannot be decoded, probably damaged or cut short; copy it again or convert "
            f"it to PNG: {' '.join(str(exc).split()) or type(exc).__name__}"
        ) from exc


def _decode(image: Image.Image, data: bytes) -> Photo:
    """Decode the first frame of an opened file; error messages do not contain the file name."""
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"holds {frames} images; only the first is used")
    depth, grey = _depth(image, data), image.mode in _GREY_MODES
    if depth == 16 and image.format == "PNG":
        grey = data[25] in (0, 4)  # Pillow reports 16-bit grey with alpha as RGBA
    deep = depth == 16 and image.mode != "CMYK"
    image.load()
    if image.mode == "CMYK":
        notes.append("CMYK converted to RGB without its colour profile; colours may shift")
        if depth == 16:
            notes.append("16-bit CMYK is read with 8 bits")
    samples = _deep_samples(image, data) if deep else _shallow_samples(image, grey)
    if samples.shape[:2] != (image.height, image.width) or samples.size == 0:
        raise DeblurExportError("cannot be decoded to its stated size; convert it to PNG")
    exif, orientation = _exif(image, notes)
    samples = _apply_orientation(samples, orientation)
    alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
    colours = samples[..., : 1 if samples.shape[2] < 3 else 3]
    rgb = colours.astype(np.float32) / np.float32(65535 if deep else 255)
    if alpha is not None and deep and _tiff_tag(image, _EXTRA_SAMPLES) == (1,):
        # Premultiplied alpha; for 8 bits Pillow divides by it.
        rgb = np.minimum(rgb * 65535 / np.maximum(alpha, 1)[..., None].astype(np.float32), 1)
    icc = image.info.get("icc_profile")
    return Photo(
        rgb=np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3))),
        alpha=None if alpha is None else np.ascontiguousarray(alpha),
        bits=16 if deep else 8,
        grey=grey,
        icc_profile=icc if icc and isinstance(icc, bytes) and image.mode != "CMYK" else None,
        exif=exif,
        format="JPEG" if image.format == "MPO" else str(image.format),
        notes=tuple(notes),
    )


def _depth(image: Image.Image, data: bytes) -> int:
    """Bits per sample in the file. Raises DeblurExportError for unsupported kinds of pixels."""
    depth = 8
    if image.format == "PNG":
        depth = data[24]
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        depth = max(image.tag_v2.get(_BITS, (1,)))
    wide_grey = image.mode.startswith("I")
    # 12-bit grey TIFF has the mode I;16 as well; white-is-zero I;16 is decoded inverted.
    known = image.mode in _GREY_MODES | _COLOUR_MODES and (depth == 16 or not wide_grey)
    if not known or depth > 16 or (wide_grey and _tiff_tag(image, _PHOTOMETRIC) == 0):
        raise DeblurExportError(
            f"{depth}-bit pixels of kind {image.mode} are not supported; convert it to 8-bit or "
            "16-bit RGB"
        )
    return depth


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    return image.tag_v2.get(tag) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def _shallow_samples(image: Image.Image, grey: bool) -> NDArray[np.uint8]:
    """Samples uint8 [H, W, 1..4]: grey, grey and alpha, RGB or RGBA."""
    mode = "L" if grey else "RGB"
    if image.has_transparency_data:
        mode = "LA" if grey else "RGBA"
    samples = np.asarray(image.convert(mode), np.uint8)
    return samples.reshape(image.height, image.width, -1)


def _deep_samples(image: Image.Image, data: bytes) -> NDArray[np.uint16]:
    """Samples uint16 [H, W, 1..4]: grey, grey and alpha, RGB or RGBA."""
    if image.mode in _GREY_MODES:
        grey = np.asarray(image).astype(np.uint16)
        key = image.info.get("transparency")
        if key is None:
            return grey[..., None]
        return np.stack([grey, np.where(grey == key, 0, 65535).astype(np.uint16)], axis=-1)
    # Pillow has no mode for 16-bit colour and would return only the upper 8 bits.
    import cv2

    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 5, or 4
    level = log.setLogLevel(0)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    planar = _tiff_tag(image, _PLANAR) == 2  # OpenCV 5 decodes its samples in a wrong order
    if planar or bgr is None or bgr.ndim != 3 or bgr.dtype != np.uint16:
        raise DeblurExportError("this kind of 16-bit image is not supported; convert it to PNG")
    grey_alpha = image.format == "PNG" and data[25] == 4
    order = [0, 3] if grey_alpha else [2, 1, 0, 3] if image.has_transparency_data else [2, 1, 0]
    return np.asarray(bgr[..., order], np.uint16)


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


def _apply_orientation(samples: Samples, orientation: int) -> Samples:
    transpose, flip_rows, flip_columns = _ORIENTATIONS.get(orientation, (False, False, False))
    if transpose:
        samples = samples.swapaxes(0, 1)
    return samples[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def write_photo(
    photo: Photo, rgb: NDArray[np.float32], path: Path, quality: int = 95
) -> tuple[str, ...]:
    """Write a restored photo in the way in which the original is stored.

    Bit depth, greyscale (the mean of the channels), alpha, ICC profile and EXIF are those of
    `photo`, as far as the format supports them.

    Args:
        photo: the original.
        rgb: the restored image, float32 [H, W, 3], clipped to 0..1.
        path: the file to write; its suffix gives the format.
        quality: of JPEG and WebP, 1..100.

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
    if not np.isfinite(rgb).all():
        raise DeblurExportError(
            f"{path}: not written: the restored image contains NaN or infinity; try fp32"
        )
    side = max(rgb.shape[:2])
    if kind.largest_side is not None and side > kind.largest_side:
        raise DeblurExportError(
            f"{path}: {side} pixels are more than the {kind.largest_side} that {kind.name} "
            "supports; write .png or .tif"
        )
    notes: list[str] = []
    samples = _samples(photo, rgb, kind, notes)
    icc, exif = _metadata(photo, kind, notes)
    try:
        if samples.dtype == np.uint16:
            data = _DEEP_WRITERS[kind.name](samples, icc, exif)
        else:
            buffer = io.BytesIO()
            options = {"icc_profile": icc, "exif": exif}
            Image.fromarray(samples.squeeze(-1) if samples.shape[2] == 1 else samples).save(
                buffer, kind.name, quality=quality, **{k: v for k, v in options.items() if v}
            )
            data = buffer.getvalue()
    except (OSError, ValueError) as exc:
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
    top = np.iinfo(dtype).max
    colours = rgb.mean(axis=2, keepdims=True) if photo.grey else rgb
    samples: Samples = np.rint(np.clip(colours, 0, 1) * np.float32(top)).astype(dtype)
    if photo.alpha is None:
        return samples
    if not kind.alpha:
        notes.append(
            f"transparency dropped: {kind.name} does not support it; write .png to keep it"
        )
        return samples
    alpha = photo.alpha
    if alpha.dtype != dtype:
        alpha = np.rint(alpha / np.float32(257)).astype(dtype)
    if photo.grey and kind.name == "TIFF" and dtype is np.uint16:
        samples = samples.repeat(3, axis=2)  # many programs, such as Pillow, cannot read the pair
    return np.concatenate([samples, alpha[..., None]], axis=2)


def _metadata(
    photo: Photo, kind: ImageFormat, notes: list[str]
) -> tuple[bytes | None, bytes | None]:
    """The ICC profile and the EXIF block if the format supports them, or else None."""
    icc, exif = photo.icc_profile, photo.exif
    if not kind.grey_profile and icc is not None and icc[16:20] == b"GRAY":
        notes.append(f"grey colour profile dropped: {kind.name} supports RGB only")
        icc = None
    if kind.largest_exif is not None and exif is not None and len(exif) > kind.largest_exif:
        notes.append(f"EXIF data dropped: too long for {kind.name}")
        exif = None
    return icc, exif


def _png16(samples: Samples, icc: bytes | None, exif: bytes | None) -> bytes:
    """Encode samples uint16 [H, W, 1..4] as a PNG file."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = np.ascontiguousarray(samples, ">u2").view(np.uint8).reshape(height, -1)
    lines = np.full((height, rows.shape[1] + 1), 2, np.uint8)  # filter 2: difference to row above
    lines[:, 1:] = rows
    lines[1:, 1:] -= rows[:-1]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _tiff16(samples: Samples, icc: bytes | None, exif: bytes | None) -> bytes:
    """Encode samples uint16 [H, W, 1, 3 or 4] as an uncompressed TIFF file.

    An EXIF block is a TIFF directory, so Pillow's class for it writes everything except the pixels.
    Pillow counts the offset of the strip from the end of the directory.
    """
    height, width, channels = samples.shape
    directory = Image.Exif()
    if exif:
        directory.load(exif)
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


# Pillow does not write 16-bit colour.
_DEEP_WRITERS = {"PNG": _png16, "TIFF": _tiff16}
