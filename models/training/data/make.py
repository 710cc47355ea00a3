"""Write datasets of synthetic image pairs: arrays that training reads with memory mapping.

`dataset.py` describes the arrays in FOLDER/{train,val,test}. FOLDER/dataset.json records the seed,
the number of pairs and the photos that the dataset was made from.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_export.atomic import atomic_folder
from deblur_export.child import end_with
from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data.blur import KINDS, VERSION, Pair, synthesize
from deblur_export.models.training.data.photos import (
    SPLITS,
    PhotoFile,
    Split,
    find_photos,
    load_photo,
)

DESCRIPTION = "dataset.json"
PIXEL_BYTES = 3 + 3 + 1 + 2 * 2
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class DatasetPlan:
    """What a dataset is made from. The same plan gives the same bytes with any number of jobs.

    Attributes:
        photos: folder of sharp photos.
        counts: number of pairs in each split.
        seed: everything random follows from it.
        size: side of the images in pixels.
    """

    photos: Path
    counts: Mapping[Split, int]
    seed: int = 0
    size: int = 256

    def description(self, files: Sequence[PhotoFile]) -> dict[str, Any]:
        """The content of dataset.json."""
        return {
            "generator": VERSION,
            "seed": self.seed,
            "size": self.size,
            "counts": {split: self.counts.get(split, 0) for split in SPLITS},
            "kinds": dict(KINDS),
            "photos": [file.describe() for file in files],
        }


@dataclass(frozen=True)
class _Task:
    """One pair to make, number `index` of its split, from one of `files`."""

    split: Split
    index: int
    files: tuple[Path, ...]
    seed: int
    size: int


def make_dataset(
    folder: Path, plan: DatasetPlan, jobs: int = 1, advance: Callable[[], None] = lambda: None
) -> bool:
    """Write a dataset, unless the folder holds the same one already.

    Args:
        folder: where to write; it appears complete at the end, or not at all.
        plan: photos, numbers of pairs, seed and size.
        jobs: number of processes.
        advance: called after each pair.

    Returns:
        True if the dataset was written, False if `folder` holds the same one already.

    Raises:
        DeblurExportError: `folder` holds something else, a split has no photos, a photo cannot be
            read or is too small, or the disk is full.
    """
    files = find_photos(plan.photos)
    description = plan.description(files)
    if _exists(folder, description):
        return False
    tasks = _tasks(plan, files)
    _check_photos(files, plan)
    _check_space(folder, plan)
    with atomic_folder(folder) as temporary:
        wanted = [split for split in SPLITS if plan.counts.get(split)]
        arrays = {split: _arrays(temporary, plan, split) for split in wanted}
        for task, pair in _make_all(tasks, jobs):
            for name, values in pair.items():
                arrays[task.split][name][task.index] = values
            advance()
        text = json.dumps(description, indent=1)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    return True


def _exists(folder: Path, description: dict[str, Any]) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeblurExportError(
            f"{folder}: exists and is not a dataset; choose another name"
        ) from error
    if found != description:
        raise DeblurExportError(
            f"{folder}: holds a dataset made with another seed, size, set of photos or version of "
            "the generator; choose another name or remove it"
        )
    return True


def _tasks(plan: DatasetPlan, files: Sequence[PhotoFile]) -> list[_Task]:
    tasks = []
    for split in SPLITS:
        paths = tuple(file.path for file in files if file.split == split)
        count = plan.counts.get(split, 0)
        if count and not paths:
            raise DeblurExportError(f"{plan.photos}: contains no photo for the split '{split}'")
        tasks += [_Task(split, i, paths, plan.seed, plan.size) for i in range(count)]
    return tasks


def _check_photos(files: Sequence[PhotoFile], plan: DatasetPlan) -> None:
    """Refuse photos that are too small before any pair is made, not an hour later."""
    errors = []
    for file in files:
        try:
            if plan.counts.get(file.split) and min(_photo(file.path).shape[:2]) < plan.size:
                errors.append(
                    f"{file.path}: too small after downscaling to the size at which it is sharp; "
                    f"both sides must have at least {plan.size} pixels"
                )
        except DeblurExportError as error:
            errors.append(str(error))
    if len(errors) == 1:
        raise DeblurExportError(errors[0])
    if errors:
        raise DeblurExportError(
            f"{len(errors)} of {len(files)} photos cannot be used; remove or replace them: "
            f"{'; '.join(errors)}"
        )


def _check_space(folder: Path, plan: DatasetPlan) -> None:
    """Refuse a disk with too little space.

    The arrays are memory-mapped: a disk that runs full would kill the process without a message.
    """
    parent = next(path for path in folder.absolute().parents if path.exists())
    needed = sum(plan.counts.values()) * plan.size**2 * PIXEL_BYTES
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DeblurExportError(
            f"{folder}: the dataset needs {needed / 1e9:.1f} GB and the disk has "
            f"{free / 1e9:.1f} GB left; free some space or choose another disk"
        )


def _arrays(folder: Path, plan: DatasetPlan, split: Split) -> Arrays:
    """Create the files of one split, to be filled."""
    (folder / split).mkdir()
    shape = (plan.counts[split], plan.size, plan.size)
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "blurred": (np.uint8, (*shape, 3)),
        "sharp": (np.uint8, (*shape, 3)),
        "mask": (np.uint8, shape),
        "motion": (np.float16, (*shape, 2)),
    }
    return {
        name: np.lib.format.open_memmap(folder / split / f"{name}.npy", "w+", dtype, shape)
        for name, (dtype, shape) in layout.items()
    }


def _make_all(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[_Task, Arrays]]:
    if jobs == 1:
        yield from zip(tasks, map(_make, tasks), strict=True)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _start, (os.getpid(),)) as pool:
        yield from zip(tasks, pool.imap(_make, tasks, chunksize=8), strict=True)


def _start(parent: int) -> None:
    end_with(parent)
    cv2.setNumThreads(1)


def _make(task: _Task) -> Arrays:
    """Make one pair in its stored form. It depends only on the seed, its split and its index."""
    seed = (task.seed, SPLITS.index(task.split), task.index)
    path = task.files[int(np.random.default_rng((*seed, 1)).integers(len(task.files)))]
    return _stored(synthesize(_photo(path), seed, (task.size, task.size)))


def _stored(pair: Pair) -> Arrays:
    return {
        "blurred": _bytes(pair.blurred),
        "sharp": _bytes(pair.sharp),
        "mask": _bytes(pair.mask),
        "motion": pair.motion.astype(np.float16),
    }


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(values * 255).astype(np.uint8)


@lru_cache(maxsize=128)
def _photo(path: Path) -> NDArray[np.uint8]:
    return load_photo(path)
