"""`deblur-export run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deblur_export.commands.common import (
    PATH,
    RUNTIMES,
    make_console,
    plugins_option,
    precision_option,
)
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.image_formats import OPTIONS
from deblur_export.shown import shown

if TYPE_CHECKING:
    from rich.console import Console

    from deblur_export.export.images.batch import Job
    from deblur_export.export.restore import Restorer
    from deblur_export.export.tile_choice import TileOptions


@click.command()
@click.argument("file", type=PATH)
@click.argument("photos", type=PATH, nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", type=PATH, default="restored", show_default=True, help="Folder.")
@click.option(
    "--tile",
    type=click.IntRange(min=0),
    help="Side of a tile in pixels of the photo; 0: no tiling.",
)
@click.option("--overlap", type=click.IntRange(min=0), help="Overlap of tiles in pixels.")
@click.option("--format", "suffix", type=click.Choice(OPTIONS))
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="What runs FILE; auto selects the best that is installed, and says why.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of JPEG and WebP.  [default: no less than the photo's, at least 95; lossless WebP stays]",
)
@precision_option
@plugins_option
@click.option("--overwrite", is_flag=True, help="Replace results that are there already.")
@click.option("--mask", is_flag=True, help="Also write the detected blur to NAME_mask.png.")
def run(
    file: Path,
    photos: tuple[Path, ...],
    output: Path,
    tile: int | None,
    overlap: int | None,
    suffix: str | None,
    runtime: Any,
    quality: int | None,
    precision: Any,
    plugins: tuple[Path, ...],
    overwrite: bool,
    mask: bool,
) -> None:
    """Restore photos with FILE, ONNX or an engine, and write them into a folder under their own
    names. IMAGE is a photo, or a folder, whose photos are restored without those of its subfolders.

    A photo that cannot be restored does not stop the others; the exit code is then 1.
    """
    from deblur_export.export.images.batch import find_photos, listed, plan_jobs

    # Photos are looked for before anything large is loaded; a FILE that is missing is named first.
    found = find_photos(photos) if file.is_file() else []
    from deblur_export.engine_file import read_runnable

    artifact = read_runnable(file)
    jobs = plan_jobs(
        found,
        output,
        suffix,
        mask=mask,
        overwrite=overwrite,
        quality=quality,
        reads=[*artifact.files, *plugins],
    )
    from deblur_export.export.restore import Restorer
    from deblur_export.export.runtimes.choose import choose_runtime
    from deblur_export.export.tile_choice import TileOptions

    console = make_console()
    chosen = choose_runtime(runtime, artifact, precision)
    restorer = Restorer(artifact, mask, chosen.runtime, precision, plugins)
    if chosen.reason:
        console.print(f"runtime: {chosen.reason}")
    for note in (*artifact.notes, *restorer.session.notes):
        console.print(f"note: {note}")
    make_folder(output)
    failed = restore_jobs(restorer, jobs, TileOptions(tile, overlap), quality, console)
    if failed and len(jobs) == 1:
        raise next(iter(failed.values()))
    for error in failed.values():
        console.print(f"not restored: {shown(error, 1000)}")
    if failed:
        names = listed([job.source for job in failed])
        raise CheckFailedError(f"{len(failed)} of {len(jobs)} photos were not restored: {names}")


def make_folder(folder: Path) -> None:
    """Make the folder of the results.

    Raises:
        DeblurExportError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeblurExportError(f"{folder}: cannot create the folder: {error.strerror}") from error


def restore_jobs(
    restorer: Restorer,
    jobs: Sequence[Job],
    options: TileOptions,
    quality: int | None,
    console: Console,
) -> dict[Job, DeblurExportError]:
    """Restore photos one after the other with a progress bar; returns which failed, and why."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from deblur_export.export.restore import restore_file

    failed: dict[Job, DeblurExportError] = {}
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        for job in jobs:
            task = progress.add_task(shown(job.source.name), total=None)
            try:
                notes = restore_file(
                    restorer,
                    job.source,
                    job.target,
                    options,
                    lambda done, total, task=task: progress.update(  # type: ignore[misc]
                        task, completed=done, total=total
                    ),
                    quality,
                )
            except DeblurExportError as error:
                failed[job] = error
                console.print(f"{shown(job.source)}: failed")
                continue
            finally:
                progress.remove_task(task)
            console.print(f"{shown(job.source)} -> {shown(job.target)}")
            for note in notes:
                console.print(f"  note: {shown(note, 1000)}")
    return failed
