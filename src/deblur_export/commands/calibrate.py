"""`deblur-export calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deblur_export.commands.common import PATH, make_console, steps
from deblur_export.shown import shown

METHODS = ("mse", "minmax", "percentile", "entropy")
LAYOUTS = ("tensorrt", "cpu")


@click.command()
@click.argument("file", type=PATH)
@click.option("--images", type=PATH, help="Folder of photos to calibrate on.")
@click.option(
    "--dataset",
    type=PATH,
    help="Dataset made by `deblur-export pairs`: the PSNR is measured on its split val; its split "
    "train is used for calibration if --images is not given.",
)
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="tensorrt: symmetric int8 activations. cpu: uint8 activations, faster in OpenVINO.",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=48, show_default=True, help="Images to use."
)
@click.option(
    "--crop",
    type=click.IntRange(min=16),
    default=256,
    show_default=True,
    help="Side of the crops from the photos, in pixels.",
)
@click.option(
    "--max-psnr-drop",
    "max_drop",
    type=float,
    default=0.1,
    show_default=True,
    help="Allowed loss of PSNR in dB; the most harmful blocks stay float32 until it is met.",
)
@click.option(
    "--table", is_flag=True, help="Print the loss of PSNR by every block, even if all can be int8."
)
@click.option("--plot", type=PATH, help="Plot loss of PSNR against fraction of int8 (PNG).")
@click.option("-o", "--output", type=PATH, help="The file to write.  [default: FILE_int8.onnx]")
def calibrate(
    file: Path,
    images: Path | None,
    dataset: Path | None,
    method: Any,
    layout: Any,
    count: int,
    crop: int,
    max_drop: float,
    table: bool,
    plot: Path | None,
    output: Path | None,
) -> None:
    """Quantize a float32 FILE to int8: calibrate it on images and keep the loss of PSNR in budget.

    With --dataset, the loss of PSNR is measured against its sharp images. Without, it is the loss
    of a network that reaches 33 dB, estimated from the difference to FILE on held-out photos.
    """
    console = make_console()
    with steps(console, "loading") as tell:
        from deblur_export.api.export import calibrate as calibrate_file
        from deblur_export.artifact import read_artifact, with_sidecar
        from deblur_export.calibration.calibrate import int8_path
        from deblur_export.calibration.report import block_table, plot_pareto, summary
        from deblur_export.outputs import check_outputs, check_plots

        artifact = read_artifact(file)
        if plot is not None:
            check_plots()
        check_outputs(
            [*with_sidecar("the int8 file", output or int8_path(artifact)), ("the plot", plot)],
            [*artifact.files, images, dataset],
        )
        result = calibrate_file(
            artifact,
            output,
            images=images,
            dataset=dataset,
            method=method,
            layout=layout,
            count=count,
            crop=crop,
            max_psnr_drop=max_drop,
            whole=table or plot is not None,
            progress=tell,
        )
        if plot is not None:
            plot_pareto(plot, result, max_drop)
    for note in artifact.notes:
        console.print(f"note: {note}")
    if result.alone:
        console.print(block_table(result))
    console.print(f"{result.artifact.path}: {summary(result)}")
    console.print(f"measured: {result.measure}")
    for note in result.left_out:
        console.print(shown(note, 1000))
    if plot is not None:
        console.print(f"wrote {plot}")
    console.print(f"next: deblur-export verify {result.artifact.path}")
