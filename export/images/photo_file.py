"""Read photos in the formats of `image_formats`, with 8 or 16 bits per sample."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from deblur_export.errors import DeblurExportError
from deblur_export.export.images.photo_encoding import Encoding, encoding_of
from deblur_export.export.images.photo_metadata import Metadata, read_metadata
from deblur_export.image_formats import FORMATS, NAMES
from deblur_export.photo_memory import check_memory, without_pixel_limit

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

# TIFF tags
_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
_FORMATS_OF_SAMPLES = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
# Of each pixel: its decoded samples twice, the photo and the restored image in float32.
_PIXEL_BYTES = {8: 3 * 2 + 12 + 12, 16: 6 * 2 + 12 + 12}
_APPLE_DOUBLE = b"\0\5\x16\7"


@dataclass(frozen=True)
class Photo:
    """A decoded image file; the EXIF orientation is already applied.

    Attributes:
        rgb: float32 [H, W, 3] in 0..1; greyscale files have three equal channels.
        alpha: [H, W], uint8 or uint16 as in the file, or None.
        bits: 8 or 16 bits per sample in the file.
        grey: whether the file is greyscale.
        metadata: profile of `rgb`, EXIF and more, as they are true after the orientation.
        encoding: how the samples are stored.
        format: name of one of `image_formats.FORMATS`.
        notes: notes to the user about the conversion, one line each.
    """

    rgb: NDArray[np.float32]
    alpha: Samples | None
    bits: int
    grey: bool
    metadata: Metadata
    encoding: Encoding
    format: str
    notes: tuple[str, ...]


def read_photo(path: Path) -> Photo:
    """Read an image file: grey, palette, RGB or CMYK, with or without alpha.

    Raises:
        DeblurExportError: the file is missing, a folder, empty, damaged, too large for the memory
            that is free, or of an unsupported kind (floating point, 32-bit, Lab).
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise DeblurExportError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    if not data:
        raise DeblurExportError(f"{path}: the file is empty (0 bytes); copy it again")
    if data.startswith(_APPLE_DOUBLE):
        raise DeblurExportError(
            f"{path}: not a photo: macOS keeps attributes of the file "
            f"{path.name.removeprefix('._')} in it; leave it out"
        )
    try:
        with without_pixel_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF blocks
            with Image.open(io.BytesIO(data), formats=[known.name for known in FORMATS]) as image:
                return _decode(image, data)
    except DeblurExportError as exc:
        raise DeblurExportError(f"{path}: {exc}") from exc
    except UnidentifiedImageError as exc:
        reason = _unknown_tiff(data) or (
            f"not a readable {NAMES} image, or it is damaged; convert it to PNG"
        )
        raise DeblurExportError(f"{path}: {reason}") from exc
    except MemoryError as exc:
        raise DeblurExportError(
            f"{path}: out of memory; close other programs, or crop or shrink the photo"
        ) from exc
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
    check_memory(image.width, image.height, _PIXEL_BYTES[16 if deep else 8])
    encoding = encoding_of(image, data)
    image.load()
    if image.mode == "CMYK":
        notes.append("CMYK converted to RGB without its colour profile; colours may shift")
        if depth == 16:
            notes.append("16-bit CMYK is read with 8 bits")
    samples = _deep_samples(image, data) if deep else _shallow_samples(image, grey)
    if samples.shape[:2] != (image.height, image.width) or samples.size == 0:
        raise DeblurExportError("cannot be decoded to its stated size; convert it to PNG")
    metadata, orientation = read_metadata(image, data, notes)
    samples = _apply_orientation(samples, orientation)
    alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
    colours = samples[..., : 1 if samples.shape[2] < 3 else 3]
    rgb = np.empty((*samples.shape[:2], 3), np.float32)
    np.divide(colours, np.float32(65535 if deep else 255), out=rgb, dtype=np.float32)
    if alpha is not None and deep and _tiff_tag(image, _EXTRA_SAMPLES) == (1,):
        # Premultiplied alpha; for 8 bits Pillow divides by it.
        rgb = np.minimum(rgb * 65535 / np.maximum(alpha, 1)[..., None].astype(np.float32), 1)
    return Photo(
        rgb=rgb,
        alpha=None if alpha is None else np.ascontiguousarray(alpha),
        bits=16 if deep else 8,
        grey=grey,
        metadata=metadata,
        encoding=encoding,
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


def _unknown_tiff(data: bytes) -> str:
    """Why Pillow knows no kind of pixels for a TIFF file; empty for other files."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return ""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if b"+" in data[:4] else 8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        bits = max(directory.get(_BITS, (1,)))
        kind = _FORMATS_OF_SAMPLES.get(max(directory.get(_SAMPLE_FORMAT, (1,))), "")
    except Exception:  # the directory is damaged
        return ""
    return (
        f"{f'{bits}-bit {kind}'.strip()} samples of this kind of TIFF are not supported; convert "
        "it to 8-bit or 16-bit RGB"
    )


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


def _apply_orientation(samples: Samples, orientation: int) -> Samples:
    transpose, flip_rows, flip_columns = _ORIENTATIONS.get(orientation, (False, False, False))
    if transpose:
        samples = samples.swapaxes(0, 1)
    return samples[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
