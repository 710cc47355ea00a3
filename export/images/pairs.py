"""Blurred images with the sharp truth: a dataset of deblur-export pairs, or folders of photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.images.photo_file import read_photo
from deblur_export.image_formats import SUFFIXES
from deblur_export.models.training.data.dataset import Dataset

BLURRED, SHARP, MASKS = "blurred", "sharp", "masks"
HELD_OUT = ("test", "val")  # parts of a dataset, the better one first
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """`blurred`, `sharp` [1, 3, H, W] and `mask` [H, W], in 0..1; the mask is 1 where blurred, None
    where it is not known."""

    name: str
    blurred: Image
    sharp: Image
    mask: Image | None


@dataclass(frozen=True)
class Pairs:
    """Pairs that are read one by one. `source` tells where they are from."""

    source: str
    count: int
    load: Callable[[int], Pair]

    def __iter__(self) -> Iterator[Pair]:
        return map(self.load, range(self.count))


def open_pairs(folder: Path, shape: Sequence[int | str]) -> Pairs:
    """The pairs of a folder: the held-out part of a dataset (or the part that is named), or
    `blurred/` and `sharp/`, perhaps `masks/`, with photos of the same names, whatever their suffix.

    Args:
        folder: of either kind.
        shape: of the file's input, numbers or names of dynamic dimensions.

    Raises:
        DeblurExportError: neither kind of folder, a photo without its counterpart, or the file
            takes batches only. Loading raises for unreadable photos and sizes that do not fit.
    """
    if isinstance(shape[0], int) and shape[0] != 1:
        raise DeblurExportError(
            f"--pairs runs one image at a time, and the file takes {shape[0]}; export with batch 1"
        )
    if (folder / BLURRED).is_dir() and (folder / SHARP).is_dir():
        return _fitting(_from_folders(folder), shape)
    for part in (folder, *(folder / name for name in HELD_OUT)):
        if (part / f"{BLURRED}.npy").is_file():
            return _fitting(_from_dataset(Dataset(part.parent, part.name)), shape)
    raise DeblurExportError(
        f"{folder}: no pairs inside; --pairs takes a dataset of deblur-export pairs, or a folder "
        f"with {BLURRED}/ and {SHARP}/ that hold photos of the same names"
    )


def _fitting(pairs: Pairs, shape: Sequence[int | str]) -> Pairs:
    """Refuses a pair whose images differ in size or that the file does not take."""

    def load(number: int) -> Pair:
        pair = pairs.load(number)
        height, width = pair.blurred.shape[2:]
        others = [pair.sharp.shape[2:], *([] if pair.mask is None else [pair.mask.shape])]
        if any(size != (height, width) for size in others):
            sizes = ", ".join(f"{w}x{h}" for h, w in ((height, width), *others))
            raise DeblurExportError(f"{pair.name}: the images of the pair differ in size ({sizes})")
        fixed = tuple(shape[2:])
        if isinstance(shape[2], int) and fixed != (height, width):
            raise DeblurExportError(
                f"{pair.name}: {width}x{height}, and the file takes {fixed[1]}x{fixed[0]} only; "
                "export without --shape"
            )
        return pair

    return Pairs(pairs.source, pairs.count, load)


def _from_dataset(dataset: Dataset) -> Pairs:
    def load(number: int) -> Pair:
        blurred, sharp = (_planes(part[number] / 255) for part in (dataset.blurred, dataset.sharp))
        mask = (dataset.mask[number] / 255).astype(np.float32)
        return Pair(f"{dataset.folder.name} {number}", blurred, sharp, mask)

    return Pairs(str(dataset.folder), len(dataset), load)


def _from_folders(folder: Path) -> Pairs:
    blurred, sharp = _by_stem(folder / BLURRED), _by_stem(folder / SHARP)
    masks = _by_stem(folder / MASKS) if (folder / MASKS).is_dir() else None
    for others, name in ((sharp, SHARP), (blurred if masks is None else masks, MASKS)):
        if lonely := sorted(blurred.keys() ^ others.keys()):
            raise DeblurExportError(
                f"{folder}: {lonely[0]} is not in both {BLURRED}/ and {name}/; each photo needs "
                "its counterpart of the same name"
            )
    stems = sorted(blurred)
    if not stems:
        raise DeblurExportError(f"{folder / BLURRED}: no photos ({', '.join(SUFFIXES)})")

    def load(number: int) -> Pair:
        stem = stems[number]
        mask = None if masks is None else read_photo(masks[stem]).rgb[..., 0]
        ours, truth = (_planes(read_photo(files[stem]).rgb) for files in (blurred, sharp))
        return Pair(blurred[stem].name, ours, truth, mask)

    return Pairs(str(folder), len(stems), load)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            if path.stem in found:
                raise DeblurExportError(f"{path} and {found[path.stem]} have the same name")
            found[path.stem] = path
    return found


def _planes(rgb: NDArray[np.floating]) -> Image:
    """[H, W, 3] -> [1, 3, H, W]."""
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32)
