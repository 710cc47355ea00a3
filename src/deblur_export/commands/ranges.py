"""`deblur-export ranges`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deblur_export.commands.common import PATH, make_console, steps
from deblur_export.errors import DeblurExportError
from deblur_export.precision import OVERFLOW_ADVICE

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.argument("file", type=PATH)
@click.option("--images", type=PATH, required=True, help="Folder of photos.")
@click.option("--json", "json_path", type=PATH, help="Write all ranges as JSON, for onnx --ranges.")
@click.option("--plot", type=PATH, help="Draw all ranges as PNG.")
def ranges(file: Path, images: Path, json_path: Path | None, plot: Path | None) -> None:
    """Find the range of every tensor of FILE on photos, and the tensors that are close to the
    largest float16 number."""
    console = make_console()
    with steps(console, "loading") as tell:
        lines = find_ranges(file, images, json_path, plot, tell)
    for line in lines:
        console.print(line)


def find_ranges(
    file: Path,
    images: Path,
    json_path: Path | None,
    plot: Path | None,
    progress: Callable[[str], None],
) -> list[str | Table]:
    """Find the ranges of a float32 file on a folder of photos; returns what to print.

    Raises:
        DeblurExportError: the file was not written by this package or is not float32, there are no
            photos, or a result cannot be written.
    """
    from deblur_export.artifact import read_artifact
    from deblur_export.export.graph import graph_of
    from deblur_export.export.images.cases import photo_cases
    from deblur_export.export.precision.fingerprint import fingerprint
    from deblur_export.export.precision.half_io import has_half_io
    from deblur_export.export.precision.ranges import HEADROOM, observe, write_ranges
    from deblur_export.export.precision.ranges_report import plot_ranges, ranges_table
    from deblur_export.onnx_reading import graph_errors
    from deblur_export.outputs import check_outputs, check_plots

    artifact = read_artifact(file)
    if plot is not None:
        check_plots()
    check_outputs(
        [("the file of ranges", json_path), ("the plot", plot)], [*artifact.files, images]
    )
    if artifact.manifest.precision != "fp32" or has_half_io(artifact):
        raise DeblurExportError(
            f"{file} is {artifact.manifest.precision}, its input "
            f"{artifact.manifest.input.dtype}; ranges are found on the float32 file"
        )
    left_out: list[str] = []
    cases = photo_cases(images, artifact.manifest.input.shape, leave_out=left_out.append)
    with graph_errors(file):
        graph = graph_of(artifact)
        found = observe(artifact.proto, cases, progress)
    close = [entry for entry in found if entry.headroom < HEADROOM]
    lines: list[str | Table] = [
        *(f"note: {note}" for note in artifact.notes),
        ranges_table(found),
        f"{len(found)} tensors on {len(cases)} images; {len(close)} with less than {HEADROOM:g} "
        "powers of two of headroom below 65504, which fp16 keeps in float32",
        *left_out,
    ]
    if close:
        lines.append(f"if those are too many for it: {OVERFLOW_ADVICE}")
    if ops := artifact.manifest.custom_ops:
        lines.append(f"not included: values inside the bodies of custom ops ({', '.join(ops)})")
    about = {
        "model": artifact.title,
        "weights_sha256": artifact.manifest.weights.sha256,
        "graph_sha256": fingerprint(graph),
        "images": [case.name for case in cases],
    }
    if json_path is not None:
        write_ranges(json_path, found, about)
        lines.append(f"wrote {json_path}; use it with deblur-export onnx --precision fp16 --ranges")
    if plot is not None:
        plot_ranges(plot, found, artifact.title)
        lines.append(f"wrote {plot}")
    return lines
