"""An exposure of a known scene with known motion, and the truth about it.

The mean of many warped frames in linear light. Objects are layers with soft edges, put over the
background frame by frame, so that they hide and uncover it as they move. The sharp image is the
frame in the middle of the exposure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_export.models.training.data import light
from deblur_export.models.training.data.trajectory import ObjectMotion, kernel, moments

SEEN = 0.1  # share of the exposure from which on a pixel counts as wholly blurred
MARGIN = 32  # pixels of scene around the patch, for what moves in

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """What a camera saw and the truth about it.

    blurred, sharp: float32 [H, W, 3], RGB, sRGB-encoded, 0..1. mask: float32 [H, W], 1 where an
    object was seen for at least a tenth of the exposure, linear in that share below.
    motion: float32 [H, W, 2], (dx, dy) in pixels from the first to the last moment, of the
    frontmost object that was seen at the pixel at any time; 0 where the mask is 0.
    """

    blurred: Image
    sharp: Image
    mask: Image
    motion: Image


@dataclass(frozen=True)
class Layer:
    """A moving object: colour [h, w, 3] in linear light times alpha, and alpha, as [h, w, 4].

    (x, y) is its upper left corner in the patch at the middle of the exposure.
    """

    pixels: Image
    x: int
    y: int
    motion: ObjectMotion


def expose(background: Image, layers: Sequence[Layer], count: int | None = None) -> Pair:
    """Photograph moving layers, the last one in front, before a resting background.

    Args:
        background: [H, W, 3] in linear light.
        layers: may be empty.
        count: frames; None is one a pixel of the longest way, at least nine.

    Returns:
        The pair without noise.
    """
    height, width = background.shape[:2]
    canvas = np.dstack([background, np.zeros((height, width), np.float32)])
    if count is None:
        count = max([9, *(math.ceil(1.1 * layer.motion.extent) + 1 for layer in layers)])
    mean, shares = _mean_frame(canvas, layers, moments(count))
    middle, _ = _mean_frame(canvas, layers, np.zeros(1))
    seen = np.clip(mean[..., 3] / SEEN, 0.0, 1.0)
    sharp = light.to_srgb(middle[..., :3])
    blurred = np.where(seen[..., None] > 0, light.to_srgb(mean[..., :3]), sharp)
    return Pair(blurred, sharp, seen, _motion_field(layers, shares, seen > 0))


def _mean_frame(
    canvas: Image, layers: Sequence[Layer], times: NDArray[np.float64]
) -> tuple[Image, list[Image]]:
    """The mean over `times` of canvas and layers [H, W, 4], and each layer's own mean alpha."""
    top, bottom, left, right = _region(layers, canvas.shape)
    rest = canvas[top:bottom, left:right]
    total = np.zeros_like(rest)
    shares = [np.zeros(canvas.shape[:2], np.float32) for _ in layers]
    for s in times if layers else ():
        frame = rest
        for layer, share in zip(layers, shares, strict=True):
            warped = _warp(layer, float(s), left, top, rest.shape)
            alpha = warped[..., 3:]
            frame = warped + (1 - alpha) * frame
            share[top:bottom, left:right] += alpha[..., 0]
        total += frame
    mean = canvas.copy()
    if layers:
        mean[top:bottom, left:right] = total / np.float32(len(times))
    return mean, [share / np.float32(len(times)) for share in shares]


def _region(layers: Sequence[Layer], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the part of the patch that the layers can touch."""
    boxes = []
    for layer in layers:
        height, width = layer.pixels.shape[:2]
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float)
        corners[:, :2] += (layer.x, layer.y)
        boxes += [corners @ layer.motion.matrix(s).T for s in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    if not boxes:
        return 0, 0, 0, 0
    points = np.concatenate(boxes)
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.ceil(points.max(0)).astype(int) + 2
    return top, max(top, min(bottom, shape[0])), left, max(left, min(right, shape[1]))


def _warp(layer: Layer, s: float, left: int, top: int, shape: tuple[int, ...]) -> Image:
    """The layer at time s as seen in the region at (left, top) of the patch."""
    matrix = layer.motion.matrix(s)
    matrix[:, 2] += matrix[:, :2] @ (layer.x, layer.y) - (left, top)
    if shape[0] == 0 or shape[1] == 0:
        return np.zeros(shape, np.float32)
    warped = cv2.warpAffine(layer.pixels, matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR)
    return np.asarray(warped, dtype=np.float32)


def _motion_field(
    layers: Sequence[Layer], shares: Sequence[Image], seen: NDArray[np.bool_]
) -> Image:
    """[H, W, 2]: at each pixel the way of the frontmost layer with any share in it."""
    y, x = np.mgrid[: seen.shape[0], : seen.shape[1]].astype(np.float32)
    field = np.zeros((*seen.shape, 2), np.float32)
    for layer, share in zip(layers, shares, strict=True):
        m = layer.motion.displacement().astype(np.float32)
        own = np.stack([m[i, 0] * x + m[i, 1] * y + m[i, 2] for i in (0, 1)], axis=-1)
        field = np.where((seen & (share > 0))[..., None], own, field)
    return field


def shaken(scene: Image, way: NDArray[np.float64]) -> Pair:
    """Photograph a scene with a shaking camera.

    Args:
        scene: [H + 2 MARGIN, W + 2 MARGIN, 3] in linear light.
        way: [n, 2], where the image is at equal steps of time, (x, y) in pixels, within MARGIN.
    """
    # filter2D correlates: out(p) = sum k(d) in(p + d); light at p comes from p - way.
    flipped = np.ascontiguousarray(kernel(way)[::-1, ::-1])
    blurred = patch(np.asarray(cv2.filter2D(scene, -1, flipped), dtype=np.float32))
    shape = blurred.shape[:2]
    motion = np.broadcast_to((way[-1] - way[0]).astype(np.float32), (*shape, 2)).copy()
    sharp = light.to_srgb(patch(scene))
    return Pair(light.to_srgb(blurred), sharp, np.ones(shape, np.float32), motion)


def patch(scene: Image) -> Image:
    """The scene without its margin."""
    return np.ascontiguousarray(scene[MARGIN:-MARGIN, MARGIN:-MARGIN])
