"""A picture of synthetic pairs: blurred, sharp, mask and motion side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data.blur import EXTENTS, Kind, Pair, synthesize
from deblur_export.models.training.data.photos import find_photos, load_photo

SUFFIXES = (".jpg", ".png")
SHEET_PAIRS = 24
SHEET_COLUMNS = 3


def write_sheet(path: Path, photos: Path, seed: int) -> None:
    """Write a picture of SHEET_PAIRS synthetic pairs of all kinds.

    Args:
        path: image file to write, .jpg or .png.
        photos: folder of sharp photos.
        seed: everything random follows from it.

    Raises:
        DeblurExportError: another suffix, a photo cannot be read, or the picture cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DeblurExportError(f"{path}: a contact sheet ends in {' or '.join(SUFFIXES)}")
    files = find_photos(photos)
    cells = []
    for index in range(SHEET_PAIRS):
        rng = np.random.default_rng((seed, index))
        photo = load_photo(files[int(rng.integers(len(files)))].path)
        kind: Kind = "local" if index % 4 else ("global", "sharp")[index // 4 % 2]
        cells.append(_cell(synthesize(photo, (seed, index), kind=kind)))
    rows = [np.hstack(cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
    with atomic_path(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary, quality=95)


def _cell(pair: Pair) -> NDArray[np.uint8]:
    """Blurred, sharp, mask and motion side by side."""
    mask = np.repeat(pair.mask[..., None], 3, axis=2)
    parts = [np.round(part * 255).astype(np.uint8) for part in (pair.blurred, pair.sharp, mask)]
    strip = np.hstack([*parts, motion_colours(pair.motion)])
    return np.pad(strip, ((2, 2), (4, 4), (0, 0)), constant_values=90)


def motion_colours(motion: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a motion field [H, W, 2]: hue is the direction, brightness the length.

    Returns uint8 [H, W, 3], RGB.
    """
    hsv = np.empty((*motion.shape[:2], 3), np.uint8)
    angle = np.arctan2(motion[..., 1], motion[..., 0]) % (2 * np.pi)
    hsv[..., 0] = angle * (90 / np.pi)
    hsv[..., 1] = 220
    hsv[..., 2] = 255 * np.clip(np.linalg.norm(motion, axis=-1) / EXTENTS[1], 0, 1) ** 0.5
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)
