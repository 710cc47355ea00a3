"""Pairs from a pool on disk: FOLDER/{train,val,test}/{blurred,sharp,mask,motion}.npy.

blurred, sharp uint8 [N, S, S, 3]; mask uint8 [N, S, S], 255 = blurred; motion float16 [N, S, S, 2],
(dx, dy) in pixels over the exposure. `deblur-export pairs` makes such folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deblur_export.errors import DeblurExportError

Array = npt.NDArray[Any]
BLURRED = 127  # a mask above this
FIELDS = {"blurred": (4, "uint8"), "sharp": (4, "uint8"), "mask": (3, "uint8")}


@dataclass(frozen=True)
class Batch:
    """blurred, sharp [N, 3, H, W] and mask [N, 1, H, W] in 0..1, motion [N, 2, H, W] (dx, dy) in
    pixels; float32."""

    blurred: Tensor
    sharp: Tensor
    mask: Tensor
    motion: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return self._each(lambda field: field.to(device, non_blocking=True))

    def every(self, step: int) -> Batch:
        """Every `step`-th pixel along both axes; the motion stays in pixels of the full size."""
        return self._each(lambda field: field[..., ::step, ::step])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(*map(change, (self.blurred, self.sharp, self.mask, self.motion)))


@dataclass(frozen=True)
class Turn:
    """A symmetry of the square: `quarters` rotations to the left, then perhaps a mirror."""

    quarters: int
    mirror: bool


class Pool:
    """One part ("train", "val", "test") of a pool; read from disk as needed.

    With `longest`, `draw` takes only pairs in which no pixel moves by more pixels than that.

    Raises:
        DeblurExportError: a file is missing, damaged or does not fit the others, or no pair is
            left.
    """

    def __init__(self, folder: Path, part: str, longest: float | None = None) -> None:
        self.folder = folder / part
        self.blurred, self.sharp, self.mask = (self._load(name, *FIELDS[name]) for name in FIELDS)
        self.motion = self._load("motion", 4, "float16")
        shapes = {field.shape[:3] for field in (*self._images(), self.motion)}
        if len(shapes) > 1 or not len(self):
            raise DeblurExportError(f"{self.folder}: its arrays differ in shape, or are empty")
        self.drawn = np.arange(len(self))
        if longest is not None:
            self.drawn = np.flatnonzero([extent(motion) <= longest for motion in self.motion])
            if not len(self.drawn):
                raise DeblurExportError(f"{self.folder}: no motion is as short as {longest} pixels")

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(min(self.mask.shape[1:]))

    def _load(self, name: str, dimensions: int, dtype: str) -> Array:
        path = self.folder / f"{name}.npy"
        try:
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DeblurExportError(
                f"{path}: cannot be read ({' '.join(str(error).split())}); make a pool with "
                "deblur-export pairs"
            ) from error
        if array.ndim != dimensions or array.dtype != dtype:
            raise DeblurExportError(
                f"{path}: holds {array.dtype} with {array.ndim} axes, not {dtype} with {dimensions}"
            )
        return array

    def draw(self, rng: np.random.Generator, count: int, crop: int, focus: float = 0.0) -> Batch:
        """`count` random crops, each mirrored and turned at random.

        With probability `focus` a crop shows a blurred pixel, if its image has one, at a random
        place; otherwise it lies anywhere.
        """
        pieces = []
        for number in self.drawn[rng.integers(len(self.drawn), size=count)]:
            top, left = self.corner(rng, int(number), crop, rng.random() < focus)
            turn = Turn(int(rng.integers(4)), bool(rng.integers(2)))
            window = (int(number), slice(top, top + crop), slice(left, left + crop))
            pieces.append([turned(field[window], turn) for field in self._images()])
            pieces[-1].append(turned_motion(self.motion[window], turn))
        return as_batch(*(np.stack(field) for field in zip(*pieces, strict=True)))

    def corner(
        self, rng: np.random.Generator, number: int, crop: int, focused: bool
    ) -> tuple[int, int]:
        """Top and left of a random crop of an image."""
        last = np.array(self.mask.shape[1:]) - crop
        place = rng.integers(last + 1)
        if focused and len(blurred := np.argwhere(self.mask[number] > BLURRED)):
            place = np.clip(rng.choice(blurred) - rng.integers(crop, size=2), 0, last)
        return int(place[0]), int(place[1])

    def whole(self, count: int, batch: int) -> Iterator[Batch]:
        """`count` images at full size, spread evenly over the pool, `batch` at a time."""
        numbers = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        for start in range(0, len(numbers), batch):
            chosen = numbers[start : start + batch]
            yield as_batch(*(field[chosen] for field in (*self._images(), self.motion)))

    def _images(self) -> tuple[Array, Array, Array]:
        return self.blurred, self.sharp, self.mask


def extent(motion: Array) -> float:
    """Length in pixels of the longest vector of [H, W, 2], by every fourth row and column."""
    return float(np.linalg.norm(motion[::4, ::4].astype(np.float32), axis=-1).max())


def turned(image: Array, turn: Turn) -> Array:
    """[H, W, ...] rotated to the left by quarters, then mirrored left to right."""
    image = np.rot90(image, turn.quarters)
    return image[:, ::-1] if turn.mirror else image


def turned_motion(motion: Array, turn: Turn) -> Array:
    """As `turned`, and the vectors (dx, dy) with it: a quarter to the left makes (dy, -dx)."""
    motion = turned(motion, turn)
    for _ in range(turn.quarters):
        motion = np.stack([motion[..., 1], -motion[..., 0]], axis=-1)
    return motion * np.array([-1, 1], motion.dtype) if turn.mirror else motion


def as_batch(blurred: Array, sharp: Array, mask: Array, motion: Array) -> Batch:
    """Arrays of a pool, [N, H, W, ...], to tensors."""
    return Batch(
        planes(blurred) / 255, planes(sharp) / 255, planes(mask[..., None]) / 255, planes(motion)
    )


def planes(array: Array) -> Tensor:
    """[N, H, W, C] of any kind -> float32 [N, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 3, 1), dtype=np.float32))


def fingerprint(folder: Path) -> str:
    """SHA-256 of pool.json, or "" where there is none."""
    path = folder / "pool.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
