"""`deblur-export pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deblur_export.commands.common import PATH, make_console
from deblur_export.outputs import check_outputs

if TYPE_CHECKING:
    from rich.console import Console

    from deblur_export.models.training.data.make import DatasetPlan
    from deblur_export.models.training.data.photos import Split


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=PATH, required=False)
@click.option("--photos", type=PATH, help="Folder of sharp photos to make the pairs from.")
@click.option("--fetch", "target", type=PATH, help="Download the listed photos into this folder.")
@click.option("--sheet", type=PATH, help="Write a contact sheet of pairs (.jpg, .png).")
@click.option("--train", default=3000, type=click.IntRange(0), help="Number of training pairs.")
@click.option("--val", default=60, type=click.IntRange(0), help="Number of validation pairs.")
@click.option("--test", default=120, type=click.IntRange(0), help="Number of test pairs.")
@click.option("--size", default=256, type=click.IntRange(64), help="Side of the images in pixels.")
@click.option("--seed", default=0, type=click.IntRange(0))
@click.option("--jobs", default=1, type=click.IntRange(1), help="Number of processes.")
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
    """Make a dataset of blurred and sharp pairs, with masks and motion, from photos in FOLDER.

    --fetch downloads about 65 MB of packages with apt-get (Debian, Ubuntu) and installs nothing.
    The photos stay under their own licences, which FOLDER/dataset.json records. --photos may be any
    folder of your own sharp photos.
    """
    source = photos or target
    if source is None:
        raise click.UsageError("give photos: --photos FOLDER, or --fetch FOLDER to download some")
    if not (target or sheet or folder):
        raise click.UsageError("nothing to do: give FOLDER, --fetch or --sheet")
    check_outputs([("the contact sheet", sheet)], [source])
    console = make_console()
    if target is not None:
        fetch_photos(target, console)
    if sheet is not None:
        from deblur_export.models.training.data.sheet import write_sheet

        write_sheet(sheet, source, seed)
    if folder is not None:
        from deblur_export.models.training.data.make import DatasetPlan

        counts: dict[Split, int] = {"train": train, "val": val, "test": test}
        write_dataset(folder, DatasetPlan(source, counts, seed, size), jobs, console)


def fetch_photos(folder: Path, console: Console) -> None:
    """Download the listed photos, and print which were not found."""
    from deblur_export.models.training.data.fetch import fetch

    missing = []
    for photo, found in fetch(folder):
        if not found:
            missing.append(f"{photo.package}: {photo.name}")
    for line in missing:
        console.print(f"not in this version of the package: {line}")
    console.print(f"{folder}: {len(list(folder.iterdir()))} files")


def write_dataset(folder: Path, plan: DatasetPlan, jobs: int, console: Console) -> None:
    """Make the dataset and show how many pairs are done."""
    from deblur_export.commands.console import counted
    from deblur_export.models.training.data.make import make_dataset

    with counted(console, "pairs", sum(plan.counts.values())) as advance:
        made = make_dataset(folder, plan, jobs, advance)
    console.print(f"{folder}: {'written' if made else 'exists already, with the same pairs'}")
