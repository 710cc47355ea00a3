"""`deblur-export adopt`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deblur_export.commands.calibrate import LAYOUTS
from deblur_export.commands.common import PATH, PrecisionType, make_console, steps
from deblur_export.commands.network import FieldType, RangeType
from deblur_export.commands.onnx import ShapeType
from deblur_export.models.image_spec import CHANNELS
from deblur_export.precision import PRECISIONS

if TYPE_CHECKING:
    from deblur_export.engine_record import FixedShape


class SetType(click.ParamType):  # type: ignore[type-arg]
    """An input and its value, as in sigma=0.1."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, float]:
        name, equals, number = str(value).rpartition("=")
        try:
            parsed = float(number)
        except ValueError:
            parsed = math.nan
        if not (name and equals and math.isfinite(parsed)):
            self.fail(f"'{value}' is not a name and a number like sigma=0.1", param, ctx)
        return name, parsed


@click.command()
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, help="The file to write.  [default: FILE_adopted.onnx]")
@click.option("--input-name", metavar="NAME", help="The input that is the image.")
@click.option("--output-name", metavar="NAME", help="The output that is the restored image.")
@click.option("--axes", type=click.Choice(("NCHW", "NHWC")), help="Their order in the input.")
@click.option("--channels", type=click.Choice([str(c) for c in CHANNELS]), help="Of the image.")
@click.option(
    "--range",
    "value_range",
    type=RangeType(),
    help="Values of image and result.  [default: 0,1, or 0,255 for uint8]",
)
@click.option(
    "--output-range", type=RangeType(), help="Values of the result.  [default: those of --range]"
)
@click.option(
    "--colour", type=click.Choice(("RGB", "BGR")), help="Order of the channels.  [default: RGB]"
)
@click.option(
    "--padding",
    type=click.Choice(("zeros", "reflect")),
    help="What fills images up to the size multiple.  [default: zeros]",
)
@click.option("--multiple", type=int, help="Size multiple in pixels.  [default: found by running]")
@click.option("--scale", type=int, help="Scale of the result.  [default: found by running]")
@click.option(
    "--field", type=FieldType(), help="Radius of the receptive field in pixels.  [default: found]"
)
@click.option("--shape", type=ShapeType(), help="Write a file of this one size.")
@click.option(
    "--set", "values", type=SetType(), multiple=True, help="Value of a further input; repeatable."
)
@click.option(
    "--precision",
    type=PrecisionType(tuple(PRECISIONS)),
    default="fp32",
    show_default=True,
    help="Precision of the graph; int8 needs --images or --dataset.",
)
@click.option(
    "--images",
    type=PATH,
    help="Photos: with fp16, tensors near its limits on them stay float32; with int8, they "
    "calibrate.",
)
@click.option("--dataset", type=PATH, help="int8: dataset of `deblur-export pairs`.")
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="int8: type of activations, see `calibrate`.",
)
@click.option(
    "--max-psnr-drop",
    "max_drop",
    type=float,
    default=0.1,
    show_default=True,
    help="int8: allowed loss of PSNR in dB.",
)
def adopt(
    file: Path,
    output: Path | None,
    input_name: str | None,
    output_name: str | None,
    axes: Any,
    channels: str | None,
    value_range: tuple[float, float] | None,
    output_range: tuple[float, float] | None,
    colour: Any,
    padding: Any,
    multiple: int | None,
    scale: int | None,
    field: Any,
    shape: FixedShape | None,
    values: tuple[tuple[str, float], ...],
    precision: Any,
    images: Path | None,
    dataset: Path | None,
    layout: Any,
    max_drop: float,
) -> None:
    """Adopt an ONNX FILE of another exporter that maps an image to an image.

    FILE is run to find out which images it accepts; what cannot be seen is assumed. The file that
    is written has the form of all files here, and is proved equal to FILE.
    """
    console = make_console()
    with steps(console, "loading") as tell:
        from deblur_export.api.adopt import adopt as adopt_file
        from deblur_export.commands.facts import facts_table

        artifact = adopt_file(
            file,
            output,
            input_name=input_name,
            output_name=output_name,
            axes=axes,
            channels=None if channels is None else int(channels),
            value_range=value_range,
            output_range=output_range,
            colour=colour,
            padding=padding,
            multiple=multiple,
            scale=scale,
            field=field,
            shape=shape,
            values=dict(values),
            precision=precision,
            images=images,
            dataset=dataset,
            layout=layout,
            max_psnr_drop=max_drop,
            progress=tell,
        )
    console.print(facts_table(file.name, artifact.manifest.facts))
    for note in artifact.notes:
        console.print(f"note: {note}", markup=False)
    manifest = artifact.manifest
    console.print(
        f"wrote {artifact.path}: opset {manifest.opset}, {manifest.precision}, equal to {file.name}"
        if manifest.precision == "fp32"
        else f"wrote {artifact.path}: opset {manifest.opset}, {manifest.precision}",
        markup=False,
    )
    console.print(f"next: deblur-export verify {artifact.path}", markup=False)
