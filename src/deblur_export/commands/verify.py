"""`deblur-export verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deblur_export.commands.common import (
    PATH,
    RUNTIMES,
    make_console,
    plugins_option,
    precision_option,
    steps,
)
from deblur_export.errors import CheckFailedError
from deblur_export.shown import shown

if TYPE_CHECKING:
    from deblur_export.export.parity.report import ParityReport


@click.command()
@click.argument("file", type=PATH)
@click.option(
    "--model", metavar="NAME", help="Your own network, named again as at the export: its code runs."
)
@click.option("--images", type=PATH, help="Folder of photos to compare on as well.")
@click.option(
    "--pairs",
    type=PATH,
    help="Dataset of `deblur-export pairs`, or folder with blurred/ and sharp/: compare with the "
    "sharp images as well.",
)
@click.option(
    "--max-psnr-drop",
    "max_drop",
    type=float,
    help="With --pairs: mean PSNR in dB that FILE may lose against PyTorch.  [default: 0.1]",
)
@click.option(
    "--against",
    type=PATH,
    help="Compare with this ONNX file in float32 instead; of an adopted FILE, where its original "
    "is now.",
)
@click.option("--weights", help="Checkpoint, if it was moved since the export.")
@click.option(
    "--ema/--no-ema",
    default=None,
    help="Compare with the averaged weights of the checkpoint, or with the others.  "
    "[default: those that were exported]",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    show_default="onnxruntime, and tensorrt for an engine",
    help="What runs FILE; auto selects as `run` does.",
)
@precision_option
@plugins_option
@click.option("--float64", is_flag=True, help="Also report the errors of both against float64.")
@click.option("--min-psnr", type=float, help="Fail below this PSNR against PyTorch, in dB.")
@click.option("--json", "json_path", type=PATH, help="Write the report as JSON.")
@click.option("--html", "html_path", type=PATH, help="Write the report as one HTML page.")
def verify(
    file: Path,
    model: str | None,
    images: Path | None,
    pairs: Path | None,
    max_drop: float | None,
    against: Path | None,
    weights: str | None,
    ema: bool | None,
    runtime: Any,
    precision: Any,
    plugins: tuple[Path, ...],
    float64: bool,
    min_psnr: float | None,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Check that FILE, ONNX or an engine, computes the same as its PyTorch network, or an adopted
    FILE the same as its original, and with --pairs that it deblurs as well. The exit code is 1 if
    it does not."""
    if max_drop is not None and pairs is None:
        raise click.UsageError("--max-psnr-drop needs the sharp images of --pairs")
    console = make_console()
    with steps(console, "loading PyTorch") as tell:
        from deblur_export.api.parity import RUNTIME_NOTE
        from deblur_export.api.parity import verify as verify_file
        from deblur_export.export.parity.report import render_table

        report = verify_file(
            file,
            model,
            images=images,
            pairs=pairs,
            max_psnr_drop=max_drop,
            against=against,
            weights=weights,
            ema=ema,
            runtime=runtime,
            precision=precision,
            plugins=plugins,
            float64=float64,
            min_psnr=min_psnr,
            json=json_path,
            html=html_path,
            progress=tell,
        )
    chosen = [note for note in report.notes if note.startswith(RUNTIME_NOTE)]
    for note in chosen:
        console.print(note)
    render_table(report, console)
    for note in report.notes[len(chosen) :]:
        console.print(f"note: {note}")
    for path in (json_path, html_path):
        if path is not None:
            console.print(f"wrote {path}")
    if not report.passed:
        raise CheckFailedError(_failure(file, report))


def _failure(file: Path, report: ParityReport) -> str:
    """Why FILE failed, in one line."""
    if report.ground_truth is not None and all(case.passed for case in report.cases):
        return f"{file}: {report.ground_truth.reason}"
    worst = next((case for case in report.cases if not case.passed), None)
    if worst is None:
        return f"{file} does not match {report.reference_name}: {report.verdict}"
    layer = ""
    if report.first_diverged is not None:
        layer = f"; first layer that diverges: {report.first_diverged}"
    elif report.layers:
        layer = f"; none of the {len(report.layers)} compared layers diverges"
    return (
        f"{file} does not match {report.reference_name}: {shown(worst.name)}: {worst.reason}{layer}"
    )
