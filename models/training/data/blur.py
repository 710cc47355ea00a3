"""Synthesize pairs of a blurred and a sharp image with known mask and motion from a sharp photo.

There are three kinds: local (drawn with probability 0.65), where one or two objects move before a
static background; global (0.25), where the camera shakes; and sharp (0.1), where nothing moves. The
texture of an object is cut from the scene itself, where it then moves, or from another region of
the photo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data import light
from deblur_export.models.training.data.crop import TRIES, gradient, random_crop
from deblur_export.models.training.data.exposure import (
    MARGIN,
    Image,
    Layer,
    Pair,
    expose,
    patch,
    shaken,
)
from deblur_export.models.training.data.shapes import random_shape
from deblur_export.models.training.data.trajectory import random_motion, shake

__all__ = ["KINDS", "VERSION", "Kind", "Pair", "synthesize"]

Kind = Literal["local", "global", "sharp"]
KINDS: dict[Kind, float] = {"local": 0.65, "global": 0.25, "sharp": 0.1}
VERSION = 2  # of the mapping from seeds to pairs; a dataset records it

EXTENTS = (3.0, 41.0)  # range of object motion in pixels, drawn log-uniformly
SHAKE_EXTENTS = (3.0, 31.0)  # range of camera motion in pixels, drawn log-uniformly
AREAS = (0.07, 0.45)  # area of all objects together as a fraction of the patch
VISIBLE = 0.03  # smallest useful change by motion: root mean square of sRGB-encoded values in 0..1


def synthesize(
    photo: NDArray[np.uint8],
    seed: int | Sequence[int],
    size: tuple[int, int] = (256, 256),
    kind: Kind | None = None,
) -> Pair:
    """Make one pair from a sharp photo.

    Args:
        photo: uint8 [H, W, 3], sRGB-encoded RGB, at least as large as `size`.
        seed: everything random follows from it.
        size: height and width of the pair in pixels.
        kind: "local", "global" or "sharp"; None draws one at random.

    Returns:
        The pair, with images of `size`; `Pair` gives shapes and ranges.

    Raises:
        DeblurExportError: the photo is smaller than `size` or not uint8 RGB, or the kind is
            unknown.
    """
    _check(photo, size, kind)
    rng = np.random.default_rng(seed)
    if kind is None:
        kind = cast(Kind, rng.choice(list(KINDS), p=list(KINDS.values())))
    scene = light.decode(random_crop(photo, size, rng))
    if kind == "local":
        pair = _local(scene, photo, size, rng)
    elif kind == "global":
        pair = shaken(scene, shake(rng, _log_uniform(rng, SHAKE_EXTENTS)))
    else:
        pair = expose(patch(scene), [])
    return Pair(_photographed(pair.blurred, rng), pair.sharp, pair.mask, pair.motion)


def _check(photo: NDArray[np.uint8], size: tuple[int, int], kind: Kind | None) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise DeblurExportError(
            f"a photo must be uint8 [H, W, 3], not {photo.dtype} {list(photo.shape)}"
        )
    if photo.shape[0] < size[0] or photo.shape[1] < size[1]:
        raise DeblurExportError(
            f"the photo has {photo.shape[1]}x{photo.shape[0]} pixels; "
            f"a pair of {size[1]}x{size[0]} needs at least as many"
        )
    if kind is not None and kind not in KINDS:
        raise DeblurExportError(f"unknown kind of blur '{kind}'; known: {', '.join(KINDS)}")


def _local(
    scene: Image, photo: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator
) -> Pair:
    """Put moving objects before the scene, and draw again if their motion is hardly visible."""
    background = patch(scene)
    best, most = None, -1.0
    for _ in range(TRIES // 2):
        pair = expose(background, _objects(scene, photo, size, rng))
        amount = _visible(pair)
        if amount > most:
            best, most = pair, amount
        if amount > VISIBLE:
            break
    assert best is not None
    return best


def _visible(pair: Pair) -> float:
    """Root mean square of the change that the motion made, over the pixels of the mask."""
    change = ((pair.blurred - pair.sharp) ** 2).mean(axis=2)
    return float(np.sqrt((change * pair.mask).sum() / max(float(pair.mask.sum()), 1.0)))


def _objects(
    scene: Image, photo: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator
) -> list[Layer]:
    """Draw one or two objects, each cut from the scene or from another region of the photo."""
    count = 1 if rng.random() < 0.7 else 2
    area = _log_uniform(rng, AREAS) * size[0] * size[1] / count
    layers = []
    for _ in range(count):
        own = rng.random() < 0.5
        texture = scene if own else light.decode(random_crop(photo, size, rng))
        layers.append(_object(texture, size, area, rng))
    return layers


def _object(texture: Image, size: tuple[int, int], area: float, rng: np.random.Generator) -> Layer:
    """Cut an object of about `area` pixels where the texture is rich, and give it random motion."""
    detail = patch(cv2.blur(gradient(np.sqrt(texture[..., 1])), (33, 33)))
    centres = rng.uniform(0.15, 0.85, (TRIES, 2)) * (size[1], size[0])
    rows, columns = centres[:, 1].astype(int), centres[:, 0].astype(int)
    x, y = centres[int(np.argmax(detail[rows, columns] * rng.uniform(0.5, 1.0, TRIES)))]
    shape = random_shape(rng, texture.shape[:2], (x + MARGIN, y + MARGIN), area)
    pixels = np.dstack([texture * shape[..., None], shape])
    top, bottom, left, right = _box(shape)
    radius = math.hypot(bottom - top, right - left) / 2
    motion = random_motion(rng, _log_uniform(rng, EXTENTS), (float(x), float(y)), radius)
    cut = np.ascontiguousarray(pixels[top:bottom, left:right])
    return Layer(cut, left - MARGIN, top - MARGIN, motion)


def _box(shape: Image) -> tuple[int, int, int, int]:
    """Bounding box (top, bottom, left, right) of the nonzero pixels."""
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _log_uniform(rng: np.random.Generator, between: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(between))))


def _photographed(image: Image, rng: np.random.Generator) -> Image:
    """Add noise with sigma up to 0.01 and compress as JPEG of quality 80 to 100.

    Each is applied with probability 0.5.
    """
    if rng.random() < 0.5:
        image = light.add_noise(image, rng.uniform(0.0, 0.01), rng)
    if rng.random() < 0.5:
        image = light.through_jpeg(image, int(rng.integers(80, 101)))
    return image
