"""Make pools of blurred and sharp pairs from photos.

    python bench/pairs.py --fetch PHOTOS              # get the listed photos (Debian or Ubuntu)
    python bench/pairs.py POOL --photos PHOTOS        # train 3000, val 60, test 120 pairs
    python bench/pairs.py --sheet FILE.jpg --photos PHOTOS

`--fetch` downloads about 65 MB of packages with apt-get and installs nothing; the photos stay
under their own licences, which the pool records. Without apt-get, PHOTOS may be any folder of own
photos. FILE.jpg shows pairs: blurred, sharp, mask, motion (the hue is its direction).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from deblur_export.calibration.blur import EXTENTS, Kind, Pair, synthesize
from deblur_export.calibration.fetch import fetch
from deblur_export.calibration.photos import SPLITS, Split, find_photos, load_photo
from deblur_export.calibration.pool import PoolPlan, make_pool
from deblur_export.errors import DeblurExportError

SHEET_PAIRS = 24
SHEET_COLUMNS = 3
console = Console(stderr=True)


def fetch_photos(folder: Path) -> None:
    """Copy the listed photos, and say what was not found."""
    missing = []
    for photo, found in fetch(folder):
        if not found:
            missing.append(f"{photo.package}: {photo.name}")
    for line in missing:
        console.print(f"not in this version of the package: {line}")
    console.print(f"{folder}: {len(list(folder.iterdir()))} files")


def write_pool(folder: Path, plan: PoolPlan, jobs: int) -> None:
    """Make the pool behind a progress bar."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("pairs", total=sum(plan.counts.values()))
        made = make_pool(folder, plan, jobs, lambda: progress.advance(bar))
    console.print(f"{folder}: {'written' if made else 'there already, the same pool'}")


def write_sheet(path: Path, photos: Path, seed: int) -> None:
    """A picture of pairs of all kinds."""
    files = find_photos(photos)
    cells = []
    for index in range(SHEET_PAIRS):
        rng = np.random.default_rng((seed, index))
        photo = load_photo(files[int(rng.integers(len(files)))].path)
        kind = cast(Kind, "local" if index % 4 else ("global", "sharp")[index // 4 % 2])
        cells.append(_cell(synthesize(photo, (seed, index), kind=kind)))
    rows = [np.hstack(cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
    if not cv2.imwrite(str(path), np.vstack(rows)[..., ::-1]):
        raise DeblurExportError(f"{path}: cannot be written")


def _cell(pair: Pair) -> NDArray[np.uint8]:
    """Blurred, sharp, mask and motion side by side."""
    mask = np.repeat(pair.mask[..., None], 3, axis=2)
    parts = [np.round(part * 255).astype(np.uint8) for part in (pair.blurred, pair.sharp, mask)]
    strip = np.hstack([*parts, motion_colours(pair.motion)])
    return np.pad(strip, ((2, 2), (4, 4), (0, 0)), constant_values=90)


def motion_colours(motion: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[H, W, 2] -> RGB [H, W, 3]: hue is the direction, brightness the length."""
    hsv = np.empty((*motion.shape[:2], 3), np.uint8)
    angle = np.arctan2(motion[..., 1], motion[..., 0]) % (2 * np.pi)
    hsv[..., 0] = angle * (90 / np.pi)
    hsv[..., 1] = 220
    hsv[..., 2] = 255 * np.clip(np.linalg.norm(motion, axis=-1) / EXTENTS[1], 0, 1) ** 0.5
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--photos", type=click.Path(path_type=Path), help="Folder of photos.")
@click.option("--fetch", "target", type=click.Path(path_type=Path), help="Get the photos here.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a picture of pairs.")
@click.option("--train", default=3000, show_default=True, type=click.IntRange(0))
@click.option("--val", default=60, show_default=True, type=click.IntRange(0))
@click.option("--test", default=120, show_default=True, type=click.IntRange(0))
@click.option("--size", default=256, show_default=True, type=click.IntRange(64))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1))
def main(**options: Any) -> None:
    try:
        run(**options)
    except DeblurExportError as error:
        sys.exit(f"error: {error}")


def run(
    folder: Path | None, photos: Path | None, target: Path | None, sheet: Path | None, **rest: int
) -> None:
    """Do what was asked for; see the head of this file."""
    if target:
        fetch_photos(target)
    if (folder or sheet) and not (photos or target):
        raise DeblurExportError("--photos FOLDER is missing")
    source = photos or target
    if sheet and source:
        write_sheet(sheet, source, rest["seed"])
    if folder and source:
        counts: dict[Split, int] = {split: rest[split] for split in SPLITS}
        write_pool(folder, PoolPlan(source, counts, rest["seed"], rest["size"]), rest["jobs"])
    if not (target or sheet or folder):
        raise DeblurExportError("nothing to do: name a folder, --fetch or --sheet")


if __name__ == "__main__":
    main()
