"""Pools of pairs on disk: arrays that training reads with memory mapping, and what they are.

FOLDER/{train,val,test}/{blurred,sharp}.npy uint8 [N, H, W, 3], mask.npy uint8 [N, H, W] (255 =
blurred), motion.npy float16 [N, H, W, 2]; FOLDER/pool.json tells seed, counts and photos.
"""

from __future__ import annotations

import json
import multiprocessing
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
from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data.blur import KINDS, VERSION, Pair, synthesize
from deblur_export.models.training.data.photos import (
    SPLITS,
    PhotoFile,
    Split,
    find_photos,
    load_photo,
)

DESCRIPTION = "pool.json"
PIXEL_BYTES = 3 + 3 + 1 + 2 * 2
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class PoolPlan:
    """What a pool is made of; the same plan makes the same bytes, whatever the number of jobs."""

    photos: Path
    counts: Mapping[Split, int]
    seed: int = 0
    size: int = 256

    def description(self, files: Sequence[PhotoFile]) -> dict[str, Any]:
        """What pool.json holds."""
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
    """One pair to make: `index` within its split, from one of `files`."""

    split: Split
    index: int
    files: tuple[Path, ...]
    seed: int
    size: int


def make_pool(
    folder: Path, plan: PoolPlan, jobs: int = 1, advance: Callable[[], None] = lambda: None
) -> bool:
    """Make the pool, or find that it is there already.

    Args:
        folder: appears whole at the end, or not at all.
        plan: photos, counts, seed and size.
        jobs: processes.
        advance: called once a pair.

    Returns:
        Whether anything was made: False where `folder` holds the same pool already.

    Raises:
        DeblurExportError: `folder` holds something else, a split without photos, a photo that
            cannot be read or is too small, or the disk is full.
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
        for task, pair in _made(tasks, jobs):
            for name, values in pair.items():
                arrays[task.split][name][task.index] = values
            advance()
        text = json.dumps(description, indent=1, ensure_ascii=False)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    return True


def _exists(folder: Path, description: dict[str, Any]) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeblurExportError(f"{folder}: exists and is no pool; choose another name") from error
    if found != description:
        raise DeblurExportError(
            f"{folder}: holds a pool of another seed, size, photos or version of the generator; "
            "choose another name or remove it"
        )
    return True


def _tasks(plan: PoolPlan, files: Sequence[PhotoFile]) -> list[_Task]:
    tasks = []
    for split in SPLITS:
        paths = tuple(file.path for file in files if file.split == split)
        count = plan.counts.get(split, 0)
        if count and not paths:
            raise DeblurExportError(f"{plan.photos}: no photo in there is for {split}")
        tasks += [_Task(split, i, paths, plan.seed, plan.size) for i in range(count)]
    return tasks


def _check_photos(files: Sequence[PhotoFile], plan: PoolPlan) -> None:
    """Fail now, not in an hour."""
    for file in files:
        if plan.counts.get(file.split) and min(_photo(file.path).shape[:2]) < plan.size:
            raise DeblurExportError(
                f"{file.path}: too small once it is shrunk to be sharp; "
                f"both sides must have at least {plan.size} pixels"
            )


def _check_space(folder: Path, plan: PoolPlan) -> None:
    """The arrays are mapped: a disk that runs full would kill the process without a message."""
    parent = next(path for path in folder.absolute().parents if path.exists())
    needed = sum(plan.counts.values()) * plan.size**2 * PIXEL_BYTES
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DeblurExportError(
            f"{folder}: the pool takes {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB "
            "left; free some space or choose another disk"
        )


def _arrays(folder: Path, plan: PoolPlan, split: Split) -> Arrays:
    """The empty files of one split."""
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


def _made(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[_Task, Arrays]]:
    if jobs == 1:
        yield from zip(tasks, map(_make, tasks), strict=True)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, cv2.setNumThreads, (1,)) as pool:
        yield from zip(tasks, pool.imap(_make, tasks, chunksize=8), strict=True)


def _make(task: _Task) -> Arrays:
    """One pair as it is stored. The seed depends on split and index alone."""
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
