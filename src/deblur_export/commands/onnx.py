"""`deblur-export onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deblur_export.commands.calibrate import LAYOUTS
from deblur_export.commands.common import (
    PATH,
    PrecisionType,
    loaded_lines,
    make_console,
    steps,
)
from deblur_export.commands.network import network_choice, network_options
from deblur_export.models import NAMES
from deblur_export.precision import PRECISIONS
from deblur_export.target import DEFAULT, TARGETS

if TYPE_CHECKING:
    from rich.console import Console

    from deblur_export.artifact import Artifact
    from deblur_export.engine_record import FixedShape


class ShapeType(click.ParamType):  # type: ignore[type-arg]
    """A shape NxCxHxW (NCHW), as in 1x3x720x1280."""

    name = "NxCxHxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> FixedShape:
        parts = str(value).lower().split("x")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"'{value}' is not four sizes like 1x3x720x1280", param, ctx)
        n, c, h, w = map(int, parts)
        if not all(0 < size <= 16384 for size in (n, c, h, w)):
            self.fail(f"'{value}': sizes must lie between 1 and 16384", param, ctx)
        return n, c, h, w


io_option = click.option(
    "--io",
    type=click.Choice(("fp32", "fp16")),
    default="fp32",
    show_default=True,
    help="Type of input and output; it is recorded in the manifest.",
)


@click.command("onnx")
@network_options
@click.option(
    "--target",
    type=click.Choice(tuple(TARGETS)),
    default=DEFAULT,
    show_default=True,
    help=" ".join(f"{name}: {target.description}." for name, target in TARGETS.items()),
)
@click.option("--dynamic", is_flag=True, help="Dynamic batch, height and width (the default).")
@click.option("--shape", type=ShapeType(), help="Fixed input shape instead.")
@click.option("--no-reparam", is_flag=True, help="Export the network as trained, without folds.")
@click.option(
    "--precision",
    type=PrecisionType(tuple(PRECISIONS)),
    default="fp32",
    show_default=True,
    help="Precision of the graph. int8 is calibrated on --images or --dataset.",
)
@io_option
@click.option(
    "--ranges", type=PATH, help="fp16: file of `ranges --json`; large tensors stay float32."
)
@click.option(
    "--rescale",
    is_flag=True,
    help="Divide residual streams that exceed float16 by a power of two, exactly; with --images or "
    "--ranges, for fp16, or for fp32 and `trt --fp16` after it.",
)
@click.option("--images", type=PATH, help="Photos for the int8 calibration or for the ranges.")
@click.option("--dataset", type=PATH, help="int8: dataset to calibrate on, as in `calibrate`.")
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="int8: as in `calibrate`.",
)
@click.option(
    "--max-psnr-drop",
    "max_drop",
    type=float,
    help="int8: allowed loss of PSNR in dB.  [default: 0.1]",
)
@click.option(
    "--inline",
    is_flag=True,
    help="Also write NAME.inlined.onnx, without custom ops, for stock OpenVINO.",
)
@click.option("-o", "--output", type=PATH, help="The .onnx file to write.")
def onnx_command(
    target: Any,
    dynamic: bool,
    shape: FixedShape | None,
    no_reparam: bool,
    precision: Any,
    io: Any,
    ranges: Path | None,
    rescale: bool,
    images: Path | None,
    dataset: Path | None,
    layout: Any,
    max_drop: float | None,
    inline: bool,
    output: Path | None,
    **network: Any,
) -> None:
    """Export a network to one ONNX file and its manifest (FILE.json)."""
    model, weights = network["model"], network["weights"]
    if dynamic and shape:
        raise click.UsageError("--dynamic and --shape exclude each other")
    if model is None and weights is None:
        raise click.UsageError(
            f"name a network with --model ({', '.join(NAMES)}, or package.module:callable or "
            "path/file.py:Name of your own) or give --weights"
        )
    int8 = precision == "int8"
    if int8 and (ranges is not None or rescale):
        raise click.UsageError(
            "--ranges and --rescale are for --precision fp16; int8 needs --images or --dataset"
        )
    if int8 and images is None and dataset is None:
        raise click.UsageError(
            "--precision int8 needs images to calibrate on: --images or --dataset"
        )
    if not int8 and (dataset, max_drop, layout) != (None, None, LAYOUTS[0]):
        raise click.UsageError("--dataset, --layout and --max-psnr-drop are for --precision int8")
    console = make_console()
    with steps(console, "loading PyTorch") as tell:
        from deblur_export.api.export import export_onnx
        from deblur_export.api.loading import load_choice
        from deblur_export.calibration.calibrate import MAX_DROP
        from deblur_export.export.precision.rescale import PASS as RESCALED

        loaded = load_choice(network_choice(network), shape, tell)
        for line in loaded_lines(loaded, weights):
            console.print(line)
        if model is None:
            console.print(f"recognised {loaded.title} in {weights}")
        artifact = export_onnx(
            loaded,
            output,
            target=target,
            shape=shape,
            reparam=not no_reparam,
            precision=precision,
            io=io,
            ranges=ranges,
            rescale=rescale,
            images=images,
            dataset=dataset,
            layout=layout,
            max_psnr_drop=MAX_DROP if max_drop is None else max_drop,
            inline=inline,
            progress=tell,
        )
    if rescale and not any(report.name.startswith(RESCALED) for report in artifact.manifest.passes):
        console.print("nothing rescaled: no residual stream comes close to 65504 on these images")
    _print_export(console, artifact)
    _print_clients(console, artifact, inline)
    console.print(f"next: deblur-export verify {artifact.path}")


def _print_export(console: Console, artifact: Artifact) -> None:
    manifest, path = artifact.manifest, artifact.path
    dtype = manifest.input.dtype
    for report in manifest.passes:
        if report.changed:
            console.print(
                f"  {report.name}: {len(report.changed)} changes, relative error "
                f"{report.max_error:.0e}"
            )
    ops = ", ".join(manifest.custom_ops) or "none"
    shape = "x".join(map(str, manifest.input.shape))
    console.print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {artifact.title}, opset "
        f"{manifest.opset}, input {shape} {dtype}, custom ops with bodies: {ops}"
    )
    if manifest.precision != "fp32":
        from deblur_export.export.precision import summary

        console.print(summary(manifest))


def _print_clients(console: Console, artifact: Artifact, inline: bool) -> None:
    """Which of the two forms each client loads: tried with --inline, which is for deployment."""
    path = artifact.path
    if not artifact.manifest.custom_ops:
        if inline:
            console.print(
                f"no custom ops, so that no second file is needed: every client has {path}"
            )
    elif inline:
        from deblur_export.commands.loading import loading_lines
        from deblur_export.export.graph import inlined_path

        for file in (path, inlined_path(path)):
            console.print(f"{file}:")
            with steps(console, "loading"):
                lines = list(loading_lines(file))
            for line in lines:
                console.print(line)
    else:
        console.print(
            "OpenVINO without deblur-export loads no custom ops: --inline writes a second file for "
            f"it, and deblur-export doctor {path} tries each client"
        )
