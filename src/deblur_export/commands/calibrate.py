"""`deblur-export calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deblur_export.commands.common import PATH, make_console

METHODS = ("mse", "minmax", "percentile", "entropy")
LAYOUTS = ("tensorrt", "cpu")


@click.command()
@click.argument("file", type=PATH)
@click.option("--images", type=PATH, help="Folder of photos to calibrate on.")
@click.option(
    "--pool",
    type=PATH,
    help="Pairs of deblur-export pairs: val judges by the sharp images, train calibrates without "
    "--images.",
)
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="tensorrt: symmetric int8 activations. cpu: uint8 ones, faster in OpenVINO.",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=48, show_default=True, help="Images to use."
)
@click.option(
    "--crop",
    type=click.IntRange(min=16),
    default=256,
    show_default=True,
    help="Side of what is cut out of photos, in pixels.",
)
@click.option(
    "--max-psnr-drop",
    "max_drop",
    type=float,
    default=0.1,
    show_default=True,
    help="dB that may be lost; the most harmful blocks stay float32 until it holds.",
)
@click.option("--table", is_flag=True, help="What every block costs, even if all may be int8.")
@click.option("--plot", type=PATH, help="Draw drop against share of int8 as PNG.")
@click.option("-o", "--output", type=PATH, help="The file to write.  [default: FILE_int8.onnx]")
def calibrate(
    file: Path,
    images: Path | None,
    pool: Path | None,
    method: Any,
    layout: Any,
    count: int,
    crop: int,
    max_drop: float,
    table: bool,
    plot: Path | None,
    output: Path | None,
) -> None:
    """Make an int8 file of a float32 FILE: calibrate it on images and hold a budget of PSNR.

    The drop is measured against the sharp images of --pool; without, it is what a network at 33 dB
    would lose, estimated from the difference to FILE on photos kept aside.
    """
    console = make_console()
    with console.status("loading") as status:
        from deblur_export.calibration.calibrate import Calibration
        from deblur_export.calibration.calibrate import calibrate as run
        from deblur_export.calibration.report import block_table, plot_pareto, summary
        from deblur_export.manifest import read_artifact

        whole = table or plot is not None
        options = Calibration(images, pool, method, layout, count, crop, max_drop, whole)
        path = output or file.with_name(f"{file.stem}_int8.onnx")
        result = run(read_artifact(file), options, path, status.update)
        if plot is not None:
            plot_pareto(plot, result, max_drop)
    if result.alone:
        console.print(block_table(result))
    console.print(f"{path}: {summary(result)}")
    console.print(f"the drop is the {result.judged_by}")
    if plot is not None:
        console.print(f"wrote {plot}")
    console.print(f"next: deblur-export verify {path}")
