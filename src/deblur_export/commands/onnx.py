"""`deblur-export onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deblur_export.commands.common import PATH, make_console
from deblur_export.models import NAMES

if TYPE_CHECKING:
    from rich.console import Console

    from deblur_export.export.manifest import Artifact
    from deblur_export.export.to_onnx import Shape

TARGETS = ("portable", "ort", "openvino", "rtx")
GRAPH_PRECISIONS = ("fp32", "fp16", "bf16")


class ShapeType(click.ParamType):  # type: ignore[type-arg]
    """NxCxHxW, as in 1x3x720x1280."""

    name = "NxCxHxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> Shape:
        parts = str(value).lower().split("x")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"'{value}' is not four sizes like 1x3x720x1280", param, ctx)
        n, c, h, w = map(int, parts)
        if c != 3:
            self.fail(f"'{value}': images have 3 channels (RGB)", param, ctx)
        if not all(0 < size <= 16384 for size in (n, h, w)):
            self.fail(f"'{value}': sizes must lie between 1 and 16384", param, ctx)
        return n, c, h, w


@click.command("onnx")
@click.option("--model", help=f"Network: {', '.join(NAMES)}. Optional with a checkpoint.")
@click.option("--variant", help="Variant of the network; see `deblur-export models`.")
@click.option("--weights", help="Checkpoint (.pth, .pt, .ckpt, .safetensors), demo or random:SEED.")
@click.option(
    "--local",
    is_flag=True,
    help="Pool around each pixel instead of over the image (TLC), as published scores do.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="portable",
    show_default=True,
    help="portable: standard operators that every runtime has. ort: the fastest on ONNX Runtime. "
    "openvino: the fastest on OpenVINO. rtx: for TensorRT for RTX.",
)
@click.option("--dynamic", is_flag=True, help="Dynamic batch, height and width (the default).")
@click.option("--shape", type=ShapeType(), help="Fixed input shape instead.")
@click.option("--no-reparam", is_flag=True, help="Export the network as trained, nothing folded.")
@click.option(
    "--precision",
    type=click.Choice(GRAPH_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Of the graph; its input and output stay float32.",
)
@click.option("--ranges", type=PATH, help="What `ranges --json` found; large tensors stay float32.")
@click.option("--images", type=PATH, help="Photos to find these ranges on now, instead of a file.")
@click.option("-o", "--output", type=PATH, help="The .onnx file to write.")
def onnx_command(
    model: str | None,
    variant: str | None,
    weights: str | None,
    local: bool,
    target: Any,
    dynamic: bool,
    shape: Shape | None,
    no_reparam: bool,
    precision: Any,
    ranges: Path | None,
    images: Path | None,
    output: Path | None,
) -> None:
    """Export a network to one ONNX file and its manifest (FILE.json)."""
    if dynamic and shape:
        raise click.UsageError("--dynamic and --shape exclude each other")
    if model is None and weights is None:
        raise click.UsageError(
            f"name a network with --model ({', '.join(NAMES)}) or give --weights"
        )
    console = make_console()
    with console.status("loading PyTorch") as status:
        from deblur_export.export.checkpoint import default_weights, load_model
        from deblur_export.export.pipeline import ExportOptions, default_path, export_onnx
        from deblur_export.export.precision import keep_rule

        keep = keep_rule(precision, ranges, images, shape, status.update)
        source = weights or default_weights(model, variant)
        loaded = load_model(model, variant, source, local)
        if weights is None:
            random = "" if source == "demo" else ", so the result will not deblur"
            console.print(f"no --weights: using {source}{random}")
        if model is None:
            console.print(f"recognised {loaded.title} in {weights}")
        options = ExportOptions(target, shape, not no_reparam, precision, keep)
        path = output or default_path(loaded, options)
        artifact = export_onnx(loaded, options, path, status.update)
    _print_export(console, artifact)


def _print_export(console: Console, artifact: Artifact) -> None:
    manifest, path = artifact.manifest, artifact.path
    for report in manifest["passes"]:
        if report["changed"]:
            console.print(
                f"  {report['name']}: {len(report['changed'])} places, float64 error "
                f"{report['max_error']:.0e}"
            )
    ops = ", ".join(manifest["custom_ops"]) or "none"
    shape = "x".join(map(str, manifest["input"]["shape"]))
    console.print(
        f"{path}: {manifest['file']['bytes'] / 1e6:.1f} MB, {artifact.title}, opset "
        f"{manifest['opset']}, input {shape}, custom ops with bodies: {ops}"
    )
    if manifest["precision"] != "fp32":
        from deblur_export.export.precision import summary

        console.print(summary(manifest))
    console.print(f"next: deblur-export verify {path}")
