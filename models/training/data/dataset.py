"""Read image pairs from a dataset on disk.

A dataset is a folder FOLDER/{train,val,test}/{blurred,sharp,mask,motion}.npy, which
`deblur-export pairs` writes. `blurred` and `sharp` are uint8 [N, S, S, 3], sRGB-encoded RGB; `mask`
is uint8 [N, S, S], 255 where the image is blurred; `motion` is float16 [N, S, S, 2], the
displacement (dx, dy) in pixels over the exposure.
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
BLURRED = 127  # mask values above this count as blurred
FIELDS = {"blurred": (4, "uint8"), "sharp": (4, "uint8"), "mask": (3, "uint8")}


@dataclass(frozen=True)
class Batch:
    """A batch of float32 tensors in NCHW layout.

    Attributes:
        blurred, sharp: [N, 3, H, W] in 0..1, sRGB-encoded RGB.
        mask: [N, 1, H, W] in 0..1, 1 where the image is blurred.
        motion: [N, 2, H, W], displacement (dx, dy) in pixels over the exposure.
    """

    blurred: Tensor
    sharp: Tensor
    mask: Tensor
    motion: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return self._each(lambda field: field.to(device, non_blocking=True))

    def every(self, step: int) -> Batch:
        """Keep every `step`-th pixel along both axes.

        The motion stays in pixels of the full-size image.
        """
        return self._each(lambda field: field[..., ::step, ::step])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(*map(change, (self.blurred, self.sharp, self.mask, self.motion)))


@dataclass(frozen=True)
class Symmetry:
    """A symmetry of the square: `quarters` rotations by 90 degrees counterclockwise, then a
    left-right flip if `mirror` is set."""

    quarters: int
    mirror: bool


class Dataset:
    """One split of a dataset. The arrays are memory-mapped and read from disk as needed.

    Args:
        folder: the folder of the dataset.
        split: "train", "val" or "test".
        longest: `draw` leaves out pairs in which a pixel moves by more than this many pixels.

    Raises:
        DeblurExportError: a file is missing or damaged, the arrays differ in shape, or `longest`
            leaves no pair.
    """

    def __init__(self, folder: Path, split: str, longest: float | None = None) -> None:
        self.folder = folder / split
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
        """The shorter side of the images in pixels."""
        return int(min(self.mask.shape[1:]))

    def _load(self, name: str, dimensions: int, dtype: str) -> Array:
        path = self.folder / f"{name}.npy"
        try:
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DeblurExportError(
                f"{path}: cannot be read ({' '.join(str(error).split())}); make a dataset with "
                "deblur-export pairs"
            ) from error
        if array.ndim != dimensions or array.dtype != dtype:
            raise DeblurExportError(
                f"{path}: holds {array.dtype} with {array.ndim} axes, not {dtype} with {dimensions}"
            )
        return array

    def draw(self, rng: np.random.Generator, count: int, crop: int, focus: float = 0.0) -> Batch:
        """Draw random crops, each rotated by a random multiple of 90 degrees and flipped at random.

        Args:
            rng: everything random comes from it.
            count: number of crops.
            crop: side of a crop in pixels.
            focus: probability, in 0..1, that a crop is placed so that it contains a blurred pixel,
                if its image has one. Otherwise the position is uniform.

        Returns:
            A batch of `count` crops of `crop` x `crop` pixels.
        """
        pieces = []
        for index in self.drawn[rng.integers(len(self.drawn), size=count)]:
            top, left = self.corner(rng, int(index), crop, rng.random() < focus)
            symmetry = Symmetry(int(rng.integers(4)), bool(rng.integers(2)))
            window = (int(index), slice(top, top + crop), slice(left, left + crop))
            pieces.append([transform_image(field[window], symmetry) for field in self._images()])
            pieces[-1].append(transform_motion(self.motion[window], symmetry))
        return as_batch(*(np.stack(field) for field in zip(*pieces, strict=True)))

    def corner(
        self, rng: np.random.Generator, index: int, crop: int, focused: bool
    ) -> tuple[int, int]:
        """Draw the top and left coordinate of a crop of image `index`; see `draw`."""
        last = np.array(self.mask.shape[1:]) - crop
        corner = rng.integers(last + 1)
        if focused and len(blurred := np.argwhere(self.mask[index] > BLURRED)):
            corner = np.clip(rng.choice(blurred) - rng.integers(crop, size=2), 0, last)
        return int(corner[0]), int(corner[1])

    def whole(self, count: int, batch: int) -> Iterator[Batch]:
        """Yield `count` full-size images, spread evenly over the dataset, in batches of `batch`."""
        indices = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        for start in range(0, len(indices), batch):
            chosen = indices[start : start + batch]
            yield as_batch(*(field[chosen] for field in (*self._images(), self.motion)))

    def _images(self) -> tuple[Array, Array, Array]:
        return self.blurred, self.sharp, self.mask


def extent(motion: Array) -> float:
    """Length in pixels of the longest vector of a motion field [H, W, 2].

    Only every fourth row and column is read.
    """
    return float(np.linalg.norm(motion[::4, ::4].astype(np.float32), axis=-1).max())


def transform_image(image: Array, symmetry: Symmetry) -> Array:
    """Rotate an array [H, W, ...] counterclockwise, then flip it left to right."""
    image = np.rot90(image, symmetry.quarters)
    return image[:, ::-1] if symmetry.mirror else image


def transform_motion(motion: Array, symmetry: Symmetry) -> Array:
    """Transform a motion field [H, W, 2] as `transform_image` does, and its vectors with it.

    A rotation by 90 degrees counterclockwise makes (dy, -dx) of the vector (dx, dy).
    """
    motion = transform_image(motion, symmetry)
    for _ in range(symmetry.quarters):
        motion = np.stack([motion[..., 1], -motion[..., 0]], axis=-1)
    return motion * np.array([-1, 1], motion.dtype) if symmetry.mirror else motion


def as_batch(blurred: Array, sharp: Array, mask: Array, motion: Array) -> Batch:
    """Convert arrays of a dataset in NHWC layout, as the module describes them, to tensors."""
    return Batch(
        planes(blurred) / 255, planes(sharp) / 255, planes(mask[..., None]) / 255, planes(motion)
    )


def planes(array: Array) -> Tensor:
    """Convert an array [N, H, W, C] of any dtype to a float32 tensor [N, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 3, 1), dtype=np.float32))


def fingerprint(folder: Path) -> str:
    """SHA-256 of a dataset's dataset.json as hexadecimal digits, or "" if it has none."""
    path = folder / "dataset.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
