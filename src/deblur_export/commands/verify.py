"""`deblur-export verify` and `deblur-export ranges`."""

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
)
from deblur_export.errors import CheckFailedError

if TYPE_CHECKING:
    from deblur_export.export.parity.report import ParityReport


@click.command()
@click.argument("file", type=PATH)
@click.option("--images", type=PATH, help="Folder of photos to compare on as well.")
@click.option(
    "--pairs",
    type=PATH,
    help="Folder of `deblur-export pairs`, or with blurred/ and sharp/: compare with these too.",
)
@click.option(
    "--max-psnr-drop",
    "max_drop",
    type=float,
    help="With --pairs: mean dB that FILE may lose against PyTorch.  [default: 0.1]",
)
@click.option("--weights", help="Where the weights are now, if they moved since the export.")
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    show_default="onnxruntime, and tensorrt for an engine",
    help="What runs FILE; auto takes what run would.",
)
@precision_option
@plugins_option
@click.option("--float64", is_flag=True, help="Also report both errors against float64.")
@click.option("--min-psnr", type=float, help="Fail below this PSNR against PyTorch, in dB.")
@click.option("--json", "json_path", type=PATH, help="Write the report as JSON.")
@click.option("--html", "html_path", type=PATH, help="Write the report as one HTML page.")
def verify(
    file: Path,
    images: Path | None,
    pairs: Path | None,
    max_drop: float | None,
    weights: str | None,
    runtime: Any,
    precision: Any,
    plugins: tuple[Path, ...],
    float64: bool,
    min_psnr: float | None,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Prove that FILE, ONNX or an engine, computes what its PyTorch network computes, and with
    --pairs that it deblurs as well. Exit code 0 or 1."""
    if max_drop is not None and pairs is None:
        raise click.UsageError("--max-psnr-drop is judged by the sharp images of --pairs")
    console = make_console()
    with console.status("loading PyTorch") as status:
        from deblur_export.atomic import atomic_path
        from deblur_export.engine_file import read_runnable
        from deblur_export.export.images.cases import cases_for
        from deblur_export.export.images.pairs import open_pairs
        from deblur_export.export.parity.record import record_parity
        from deblur_export.export.parity.report import render_table, to_json
        from deblur_export.export.parity.report_html import to_html
        from deblur_export.export.parity.verify import MAX_DROP, TruthCheck, reference_model
        from deblur_export.export.parity.verify import verify as run_verify
        from deblur_export.export.runtimes.choose import choose_runtime, default_runtime

        artifact = read_runnable(file)
        # A verdict must not depend on what else is installed, so that "auto" is no default here.
        asked = runtime or default_runtime(file)
        chosen = choose_runtime(asked, artifact, precision)
        truth = None
        if pairs is not None:
            shape = artifact.manifest.input.shape
            drop = MAX_DROP if max_drop is None else max_drop
            truth = TruthCheck(open_pairs(pairs, shape), drop)
        report = run_verify(
            artifact,
            reference_model(artifact, weights),
            cases_for(artifact, images),
            html_path is not None,
            status.update,
            float64,
            chosen.runtime,
            min_psnr,
            precision,
            truth,
            plugins,
        )
    if chosen.reason:
        console.print(f"runtime: {chosen.reason}")
    render_table(report, console)
    for note in report.notes:
        console.print(f"note: {note}")
    for path, text in ((json_path, to_json), (html_path, to_html)):
        if path is not None:
            with atomic_path(path) as temporary:
                temporary.write_text(text(report), encoding="utf-8")
            console.print(f"wrote {path}")
    if not report.passed:
        raise CheckFailedError(_failure(file, report))
    record_parity(artifact, report)


def _failure(file: Path, report: ParityReport) -> str:
    """Why FILE failed, in one line."""
    if report.truth is not None and all(case.passed for case in report.cases):
        return f"{file}: {report.truth.reason}"
    layer = f"; first layer that departs: {report.first_departed}" if report.layers else ""
    return f"{file} does not match PyTorch{layer}"
