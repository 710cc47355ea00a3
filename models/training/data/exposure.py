"""Simulate the exposure of a scene with known motion, with its ground truth.

The blurred image is the mean of many warped frames in linear light. Objects are layers with soft
edges. They are composited over the background in every frame, so that they cover and uncover it as
they move. The sharp image is the frame at the middle of the exposure.
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

SEEN = 0.1  # fraction of the exposure from which on a pixel counts as fully blurred
MARGIN = 32  # pixels of scene around the patch, so that content can move into it

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """A simulated exposure and its ground truth.

    Attributes:
        blurred, sharp: float32 [H, W, 3], sRGB-encoded RGB in 0..1.
        mask: float32 [H, W] in 0..1. It is 1 where a moving object was visible for at least a tenth
            of the exposure and falls linearly to 0 below that.
        motion: float32 [H, W, 2], displacement (dx, dy) in pixels from the start to the end of the
            exposure, of the frontmost object that was visible at the pixel at any time; 0 where
            the mask is 0.
    """

    blurred: Image
    sharp: Image
    mask: Image
    motion: Image


@dataclass(frozen=True)
class Layer:
    """A moving object with premultiplied alpha.

    Attributes:
        pixels: float32 [h, w, 4] in 0..1: linear RGB times alpha, and alpha.
        x, y: its upper left corner in the patch, in pixels, at the middle of the exposure.
        motion: its motion over the exposure.
    """

    pixels: Image
    x: int
    y: int
    motion: ObjectMotion


def expose(background: Image, layers: Sequence[Layer], count: int | None = None) -> Pair:
    """Expose moving layers before a static background.

    Args:
        background: float32 [H, W, 3], linear RGB in 0..1.
        layers: the last one is in front; may be empty.
        count: number of frames; None takes one per pixel of the longest motion, at least nine.

    Returns:
        The pair, without noise.
    """
    height, width = background.shape[:2]
    scene = np.dstack([background, np.zeros((height, width), np.float32)])
    if count is None:
        count = max([9, *(math.ceil(1.1 * layer.motion.extent) + 1 for layer in layers)])
    mean, coverages = _mean_frame(scene, layers, moments(count))
    middle, _ = _mean_frame(scene, layers, np.zeros(1))
    seen = np.clip(mean[..., 3] / SEEN, 0.0, 1.0)
    sharp = light.to_srgb(middle[..., :3])
    blurred = np.where(seen[..., None] > 0, light.to_srgb(mean[..., :3]), sharp)
    return Pair(blurred, sharp, seen, _motion_field(layers, coverages, seen > 0))


def _mean_frame(
    scene: Image, layers: Sequence[Layer], times: NDArray[np.float64]
) -> tuple[Image, list[Image]]:
    """The mean over `times` of the layers composited over the scene, and of each layer's alpha.

    Scene and mean are [H, W, 4], RGB and alpha; each mean alpha is [H, W].
    """
    top, bottom, left, right = _region(layers, scene.shape)
    behind = scene[top:bottom, left:right]
    total = np.zeros_like(behind)
    coverages = [np.zeros(scene.shape[:2], np.float32) for _ in layers]
    for s in times if layers else ():
        frame = behind
        for layer, coverage in zip(layers, coverages, strict=True):
            warped = _warp(layer, float(s), left, top, behind.shape)
            alpha = warped[..., 3:]
            frame = warped + (1 - alpha) * frame
            coverage[top:bottom, left:right] += alpha[..., 0]
        total += frame
    mean = scene.copy()
    if layers:
        mean[top:bottom, left:right] = total / np.float32(len(times))
    return mean, [coverage / np.float32(len(times)) for coverage in coverages]


def _region(layers: Sequence[Layer], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Bounding box (top, bottom, left, right) of the pixels of the patch that layers can reach."""
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
    """Warp the layer to time s, seen in the region of `shape` at (left, top) of the patch."""
    matrix = layer.motion.matrix(s)
    matrix[:, 2] += matrix[:, :2] @ (layer.x, layer.y) - (left, top)
    if shape[0] == 0 or shape[1] == 0:
        return np.zeros(shape, np.float32)
    warped = cv2.warpAffine(layer.pixels, matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR)
    return np.asarray(warped, dtype=np.float32)


def _motion_field(
    layers: Sequence[Layer], coverages: Sequence[Image], seen: NDArray[np.bool_]
) -> Image:
    """Displacement [H, W, 2] in pixels: at each pixel, of the frontmost layer that covers it."""
    y, x = np.mgrid[: seen.shape[0], : seen.shape[1]].astype(np.float32)
    field = np.zeros((*seen.shape, 2), np.float32)
    for layer, coverage in zip(layers, coverages, strict=True):
        m = layer.motion.displacement().astype(np.float32)
        own = np.stack([m[i, 0] * x + m[i, 1] * y + m[i, 2] for i in (0, 1)], axis=-1)
        field = np.where((seen & (coverage > 0))[..., None], own, field)
    return field


def shaken(scene: Image, path: NDArray[np.float64]) -> Pair:
    """Expose a scene with a shaking camera.

    Args:
        scene: float32 [H + 2 MARGIN, W + 2 MARGIN, 3], linear RGB in 0..1.
        path: [n, 2], displacement (x, y) of the image in pixels at equal steps of time, at most
            MARGIN in length.

    Returns:
        The pair of [H, W] images, without noise; its mask is 1 everywhere.
    """
    # filter2D correlates: out(p) = sum k(d) in(p + d), and light at p comes from p - path.
    flipped = np.ascontiguousarray(kernel(path)[::-1, ::-1])
    blurred = patch(np.asarray(cv2.filter2D(scene, -1, flipped), dtype=np.float32))
    shape = blurred.shape[:2]
    motion = np.broadcast_to((path[-1] - path[0]).astype(np.float32), (*shape, 2)).copy()
    sharp = light.to_srgb(patch(scene))
    return Pair(light.to_srgb(blurred), sharp, np.ones(shape, np.float32), motion)


def patch(scene: Image) -> Image:
    """Cut the margin of MARGIN pixels off a scene [H, W, C]."""
    return np.ascontiguousarray(scene[MARGIN:-MARGIN, MARGIN:-MARGIN])
