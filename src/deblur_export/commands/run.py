"""`deblur-export run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deblur_export.commands.common import (
    PATH,
    RUNTIMES,
    make_console,
    plugins_option,
    precision_option,
)
from deblur_export.image_formats import OPTIONS


@click.command()
@click.argument("file", type=PATH)
@click.argument("photos", type=PATH, nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", type=PATH, default="restored", show_default=True, help="Folder.")
@click.option("--tile", type=click.IntRange(min=0), help="Side of a tile in pixels; 0: no tiling.")
@click.option("--overlap", type=click.IntRange(min=0), help="Overlap of tiles in pixels.")
@click.option("--format", "suffix", type=click.Choice(OPTIONS))
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="What runs FILE; auto selects the best that is installed, and says why.",
)
@precision_option
@plugins_option
@click.option("--mask", is_flag=True, help="Also write the detected blur to NAME_mask.png.")
def run(
    file: Path,
    photos: tuple[Path, ...],
    output: Path,
    tile: int | None,
    overlap: int | None,
    suffix: str | None,
    runtime: Any,
    precision: Any,
    plugins: tuple[Path, ...],
    mask: bool,
) -> None:
    """Restore photos with FILE, ONNX or an engine, and write them into a folder under their own
    names."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from deblur_export.engine_file import read_runnable
    from deblur_export.export.restore import Restorer, TileOptions, restore_file, targets
    from deblur_export.export.runtimes.choose import choose_runtime

    console = make_console()
    artifact = read_runnable(file)
    chosen = choose_runtime(runtime, artifact, precision)
    restorer = Restorer(artifact, mask, chosen.runtime, precision, plugins)
    if chosen.reason:
        console.print(f"runtime: {chosen.reason}")
    for note in restorer.session.notes:
        console.print(f"note: {note}")
    destinations = targets(photos, output, suffix)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        for source, target in destinations:
            task = progress.add_task(source.name, total=None)
            notes = restore_file(
                restorer,
                source,
                target,
                TileOptions(tile, overlap),
                lambda done, total, task=task: progress.update(task, completed=done, total=total),  # type: ignore[misc]
            )
            progress.remove_task(task)
            console.print(f"{source} -> {target}")
            for note in notes:
                console.print(f"  note: {note}")
