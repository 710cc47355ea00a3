"""`deblur-export verify` and `deblur-export ranges`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deblur_export.commands.common import PATH, make_console, precision_option, runtime_option
from deblur_export.errors import CheckFailedError


@click.command()
@click.argument("file", type=PATH)
@click.option("--images", type=PATH, help="Folder of photos to compare on as well.")
@click.option("--weights", help="Where the weights are now, if they moved since the export.")
@runtime_option
@precision_option
@click.option("--float64", is_flag=True, help="Also report both errors against float64.")
@click.option("--min-psnr", type=float, help="Fail below this PSNR against PyTorch, in dB.")
@click.option("--json", "json_path", type=PATH, help="Write the report as JSON.")
@click.option("--html", "html_path", type=PATH, help="Write the report as one HTML page.")
def verify(
    file: Path,
    images: Path | None,
    weights: str | None,
    runtime: Any,
    precision: Any,
    float64: bool,
    min_psnr: float | None,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Prove that FILE computes what its PyTorch network computes. Exit code 0 or 1."""
    console = make_console()
    with console.status("loading PyTorch") as status:
        from deblur_export.export.atomic import atomic_path
        from deblur_export.export.cases import photo_cases, random_cases
        from deblur_export.export.manifest import read_artifact, record_parity
        from deblur_export.export.report import render_table, to_json
        from deblur_export.export.report_html import to_html
        from deblur_export.export.verify import reference_model
        from deblur_export.export.verify import verify as run_verify
        from deblur_export.models.blocks.naf import tlc_window

        artifact = read_artifact(file)
        shape = artifact.manifest["input"]["shape"]
        window = tlc_window(artifact.manifest["arguments"].get("train_size"), 0)
        cases = random_cases(shape, window)
        if images is not None:
            cases += photo_cases(images, shape)
        reference = reference_model(artifact, weights)
        with_images = html_path is not None
        report = run_verify(
            artifact,
            reference,
            cases,
            with_images,
            status.update,
            float64,
            runtime,
            min_psnr,
            precision,
        )
    render_table(report, console)
    for note in report.notes:
        console.print(f"note: {note}")
    for path, text in ((json_path, to_json), (html_path, to_html)):
        if path is not None:
            with atomic_path(path) as temporary:
                temporary.write_text(text(report))
            console.print(f"wrote {path}")
    if not report.passed:
        layer = f"; first layer that departs: {report.first_departed}" if report.layers else ""
        raise CheckFailedError(f"{file} does not match PyTorch{layer}")
    record_parity(artifact, report)


@click.command()
@click.argument("file", type=PATH)
@click.option("--images", type=PATH, required=True, help="Folder of photos.")
@click.option("--json", "json_path", type=PATH, help="Write all ranges as JSON, for onnx --ranges.")
@click.option("--plot", type=PATH, help="Draw all ranges as PNG.")
def ranges(file: Path, images: Path, json_path: Path | None, plot: Path | None) -> None:
    """Range of every tensor of FILE on photos, and which come close to float16's limits."""
    console = make_console()
    with console.status("loading") as status:
        from deblur_export.export.precision.ranges_command import find_ranges

        lines = find_ranges(file, images, json_path, plot, status.update)
    for line in lines:
        console.print(line)
