"""`deblur-export pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deblur_export.commands.common import PATH, make_console

if TYPE_CHECKING:
    from rich.console import Console

    from deblur_export.models.training.data.make import PoolPlan
    from deblur_export.models.training.data.photos import Split


@click.command()
@click.argument("folder", type=PATH, required=False)
@click.option("--photos", type=PATH, help="Folder of photos to make the pairs from.")
@click.option("--fetch", "target", type=PATH, help="Get the listed photos into this folder.")
@click.option("--sheet", type=PATH, help="Write a picture of pairs (.jpg, .png).")
@click.option("--train", default=3000, show_default=True, type=click.IntRange(0))
@click.option("--val", default=60, show_default=True, type=click.IntRange(0))
@click.option("--test", default=120, show_default=True, type=click.IntRange(0))
@click.option("--size", default=256, show_default=True, type=click.IntRange(64))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1))
def pairs(
    folder: Path | None,
    photos: Path | None,
    target: Path | None,
    sheet: Path | None,
    train: int,
    val: int,
    test: int,
    size: int,
    seed: int,
    jobs: int,
) -> None:
    """Make FOLDER of blurred and sharp pairs, with masks and motion, from photos.

    --fetch downloads about 65 MB of packages with apt-get (Debian, Ubuntu) and installs nothing;
    the photos stay under their own licences, which FOLDER records. --photos may be any folder of
    your own photos.
    """
    source = photos or target
    if source is None:
        raise click.UsageError("name the photos: --photos FOLDER, or --fetch FOLDER to get some")
    if not (target or sheet or folder):
        raise click.UsageError("nothing to do: name a folder, --fetch or --sheet")
    console = make_console()
    if target is not None:
        fetch_photos(target, console)
    if sheet is not None:
        from deblur_export.models.training.data.sheet import write_sheet

        write_sheet(sheet, source, seed)
    if folder is not None:
        from deblur_export.models.training.data.make import PoolPlan

        counts: dict[Split, int] = {"train": train, "val": val, "test": test}
        write_pool(folder, PoolPlan(source, counts, seed, size), jobs, console)


def fetch_photos(folder: Path, console: Console) -> None:
    """Copy the listed photos, and say what was not found."""
    from deblur_export.models.training.data.fetch import fetch

    missing = []
    for photo, found in fetch(folder):
        if not found:
            missing.append(f"{photo.package}: {photo.name}")
    for line in missing:
        console.print(f"not in this version of the package: {line}")
    console.print(f"{folder}: {len(list(folder.iterdir()))} files")


def write_pool(folder: Path, plan: PoolPlan, jobs: int, console: Console) -> None:
    """Make the pairs behind a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from deblur_export.models.training.data.make import make_pool

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("pairs", total=sum(plan.counts.values()))
        made = make_pool(folder, plan, jobs, lambda: progress.advance(bar))
    console.print(f"{folder}: {'written' if made else 'there already, the same pairs'}")
