"""Pairs of a blurred image and its ground truth, from a dataset or from folders of photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.images.channels import network_image
from deblur_export.export.images.photo_file import read_photo
from deblur_export.models.training.data.dataset import Dataset
from deblur_export.photo_folder import photos_in

BLURRED, SHARP, MASKS = "blurred", "sharp", "masks"
HELD_OUT = ("test", "val")  # splits that are not trained on, in the order of preference
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """A blurred image and its ground truth.

    Attributes:
        name: for the report.
        blurred: float32 [1, C, H, W] in 0..1.
        sharp: float32 [1, C, s H, s W] for the scale s of the network.
        mask: float32 [s H, s W] in 0..1, 1 where the image is blurred; None if it is unknown.
    """

    name: str
    blurred: Image
    sharp: Image
    mask: Image | None


@dataclass(frozen=True)
class Pairs:
    """Pairs that are read one by one.

    Attributes:
        source: folder that they are read from.
        count: number of pairs.
        load: reads the pair with an index below `count`.
    """

    source: str
    count: int
    load: Callable[[int], Pair]

    def __iter__(self) -> Iterator[Pair]:
        return map(self.load, range(self.count))


def open_pairs(folder: Path, shape: Sequence[int | str], scale: int = 1) -> Pairs:
    """Open the pairs of a folder.

    Args:
        folder: a dataset of `deblur-export pairs`, of which the held-out split is used; the folder
            of one of its splits; or a folder with the subfolders `blurred`, `sharp` and optionally
            `masks`, which contain photos of the same names with any suffix.
        shape: shape of the file's input: numbers, or names of dynamic dimensions.
        scale: of the network; the sharp images are that much larger. Masks have the size of the
            blurred ones.

    Raises:
        DeblurExportError: the folder is none of these, a photo has no counterpart, or the file has
            a fixed batch size other than 1. Loading a pair raises it for unreadable photos and for
            sizes that do not fit.
    """
    if isinstance(shape[0], int) and shape[0] != 1:
        raise DeblurExportError(
            f"--pairs needs a batch size of 1, and that of the file is {shape[0]}; export with "
            "batch 1"
        )
    if (folder / BLURRED).is_dir() and (folder / SHARP).is_dir():
        return _fitting(_from_folders(folder, int(shape[1])), shape, scale)
    for split in (folder, *(folder / name for name in HELD_OUT)):
        if (split / f"{BLURRED}.npy").is_file():
            return _fitting(
                _from_dataset(Dataset(split.parent, split.name), int(shape[1])), shape, scale
            )
    raise DeblurExportError(
        f"{folder}: no pairs inside; --pairs needs a dataset of deblur-export pairs, or a folder "
        f"with {BLURRED}/ and {SHARP}/ that contain photos of the same names"
    )


def _fitting(pairs: Pairs, shape: Sequence[int | str], scale: int) -> Pairs:
    """Pairs that raise an error if their images differ in size or do not fit the file."""

    def load(index: int) -> Pair:
        pair = pairs.load(index)
        height, width = pair.blurred.shape[2:]
        sharp = pair.sharp.shape[2:]
        if sharp != (scale * height, scale * width):
            needed = f"{scale * width}x{scale * height}"
            raise DeblurExportError(
                f"{pair.name}: the blurred image is {width}x{height} and the sharp one "
                f"{sharp[1]}x{sharp[0]}, not {needed}"
                + (f": this network enlarges x{scale}" if scale > 1 else "")
            )
        if pair.mask is not None and pair.mask.shape != (height, width):
            raise DeblurExportError(
                f"{pair.name}: the blurred image is {width}x{height} and its mask "
                f"{pair.mask.shape[1]}x{pair.mask.shape[0]}"
            )
        fixed = tuple(shape[2:])
        if isinstance(shape[2], int) and fixed != (height, width):
            raise DeblurExportError(
                f"{pair.name}: is {width}x{height}, and the file supports {fixed[1]}x{fixed[0]} "
                "only; export without --shape"
            )
        if pair.mask is not None and scale > 1:
            pair = replace(pair, mask=pair.mask.repeat(scale, 0).repeat(scale, 1))
        return pair

    return Pairs(pairs.source, pairs.count, load)


def _from_dataset(dataset: Dataset, channels: int) -> Pairs:
    def load(index: int) -> Pair:
        blurred, sharp = (
            network_image((field[index] / np.float32(255)).astype(np.float32), channels)
            for field in (dataset.blurred, dataset.sharp)
        )
        mask = (dataset.mask[index] / 255).astype(np.float32)
        return Pair(f"{dataset.folder.name} {index}", blurred, sharp, mask)

    return Pairs(str(dataset.folder), len(dataset), load)


def _from_folders(folder: Path, channels: int) -> Pairs:
    blurred, sharp = _by_stem(folder / BLURRED), _by_stem(folder / SHARP)
    masks = _by_stem(folder / MASKS) if (folder / MASKS).is_dir() else None
    for others, name in ((sharp, SHARP), (blurred if masks is None else masks, MASKS)):
        if unmatched := sorted(blurred.keys() ^ others.keys()):
            raise DeblurExportError(
                f"{folder}: {unmatched[0]} is not in both {BLURRED}/ and {name}/; each photo needs "
                "its counterpart of the same name"
            )
    stems = sorted(blurred)

    def load(index: int) -> Pair:
        stem = stems[index]
        mask = None if masks is None else read_photo(masks[stem]).rgb[..., 0]
        photos = [read_photo(files[stem]) for files in (blurred, sharp)]
        # Where one is grey and the other in colour, both are taken as colours.
        grey = all(photo.grey for photo in photos)
        photo, ground_truth = (network_image(p.rgb, channels, grey, p.alpha) for p in photos)
        return Pair(blurred[stem].name, photo, ground_truth, mask)

    return Pairs(str(folder), len(stems), load)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in photos_in(folder):
        if path.stem in found:
            raise DeblurExportError(f"{path} and {found[path.stem]} have the same name")
        found[path.stem] = path
    return found
