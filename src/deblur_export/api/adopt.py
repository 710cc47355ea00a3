"""`adopt`: an ONNX file of another exporter enters the line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from deblur_export.api.common import TORCH_LOCK, PathLike, Progress, as_path, quiet
from deblur_export.api.export import calibrate
from deblur_export.artifact import Artifact, with_sidecar
from deblur_export.calibration.calibrate import MAX_DROP
from deblur_export.calibration.qdq import Layout
from deblur_export.errors import DeblurExportError
from deblur_export.export.adopt.adopt import adopt as adopt_file
from deblur_export.export.adopt.examine import Given
from deblur_export.export.adopt.source import read_source
from deblur_export.export.images.cases import cases_for
from deblur_export.export.precision.ranges import HeadroomRule, headrooms_by_images, nothing_known
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.onnx_reading import graph_errors
from deblur_export.outputs import check_outputs
from deblur_export.precision import PRECISIONS, PrecisionName
from deblur_export.temporary import temporary_folder

Pair = tuple[float, float]


def adopt(
    file: PathLike,
    output: PathLike | None = None,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    axes: Literal["NCHW", "NHWC"] | None = None,
    channels: int | None = None,
    value_range: Pair | None = None,
    output_range: Pair | None = None,
    colour: Literal["RGB", "BGR"] | None = None,
    padding: Literal["zeros", "reflect"] | None = None,
    multiple: int | None = None,
    scale: int | None = None,
    field: int | Literal["image"] | None = None,
    shape: tuple[int, int, int, int] | None = None,
    values: Mapping[str, float] | None = None,
    precision: PrecisionName = "fp32",
    images: PathLike | None = None,
    dataset: PathLike | None = None,
    layout: Layout = "tensorrt",
    max_psnr_drop: float = MAX_DROP,
    progress: Progress = quiet,
) -> Artifact:
    """Write an artifact of an ONNX file that another exporter wrote; the options of `deblur-export
    adopt`.

    What is None is found out by running the file in ONNX Runtime, or assumed; the facts in the
    manifest of the artifact say which.

    Args:
        file: an ONNX file that maps an image to an image.
        output: the .onnx file to write; None is `FILE_adopted.onnx` in the working folder, with the
            precision in its name where it is not fp32.
        input_name, output_name: of the input that is the image, and of the output that is the
            restored one.
        axes: their order in the input.
        channels: of the image: 1, 3 or 4.
        value_range, output_range: lowest and highest value of the image and of the result; None is
            0..1, or 0..255 for uint8, and for the result the range of the image.
        colour: the order of the channels.
        padding: what images are filled up with to `multiple`.
        multiple: height and width have to be multiples of this, in pixels.
        scale: how many times as high and wide the result is.
        field: radius of the receptive field in pixels, or "image" for the whole image.
        shape: (N, C, H, W), for an artifact of this one size.
        values: of all elements of further inputs, by their names.
        precision: of the graph. int8 is calibrated on `images` or `dataset`.
        images: with fp16, photos to observe: tensors close to float16's limits stay in float32;
            with int8, photos to calibrate on.
        dataset, layout, max_psnr_drop: int8 only, see `calibrate`.
        progress: called with a description of each step.

    Returns:
        The artifact. Its notes say what the user should know; the facts of its manifest say what
        was given, found and assumed.

    Raises:
        CheckFailedError: the graph in our form computes something else than the file, or too little
            of it is in the precision.
        DeblurExportError: the file does not map an image to an image, cannot be run, or the output
            cannot be written.
    """
    for name, value, known in (
        ("precision", precision, tuple(PRECISIONS)),
        ("axes", axes, (None, "NCHW", "NHWC")),
        ("colour", colour, (None, "RGB", "BGR")),
        ("padding", padding, (None, "zeros", "reflect")),
    ):
        if value not in known:
            listed = ", ".join(filter(None, known))
            raise DeblurExportError(f"{name} is {value!r}, not one of {listed}")
    photos, pairs = as_path(images), as_path(dataset)
    if precision == "int8" and photos is None and pairs is None:
        raise DeblurExportError("precision int8 needs images or a dataset to calibrate on")
    if pairs is not None and precision != "int8":
        raise DeblurExportError(f"a dataset is for int8, not for {precision}")
    if photos is not None and precision not in ("fp16", "int8"):
        raise DeblurExportError(f"images are for fp16 and int8, not for {precision}")
    suffix = "" if precision == "fp32" else f"_{precision}"
    source = read_source(Path(file))
    path = as_path(output) or Path(f"{source.path.stem}_adopted{suffix}.onnx")
    check_outputs(
        with_sidecar("the adopted file", path),
        [source.path, *source.weight_files, photos, pairs],
    )
    given = Given(
        input_name,
        output_name,
        axes,
        channels,
        value_range,
        output_range,
        colour,
        padding,
        multiple,
        scale,
        field,
        shape,
        dict(values or {}),
    )
    with TORCH_LOCK, graph_errors(source.path):
        if precision == "fp32":
            adopted = adopt_file(source, given, path, progress)
            return replace(adopted.artifact, notes=adopted.notes)
        with temporary_folder() as folder:
            adopted = adopt_file(source, given, folder / path.name, progress)
            artifact = adopted.artifact
            left_out: list[str] = []
            if precision == "int8":
                result = calibrate(
                    artifact,
                    path,
                    images=photos,
                    dataset=pairs,
                    layout=layout,
                    max_psnr_drop=max_psnr_drop,
                    progress=progress,
                )
                made, left_out = result.artifact, list(result.left_out)
            else:
                rule: HeadroomRule = nothing_known
                if photos is not None:
                    cases = cases_for(artifact, photos, left_out.append)
                    rule = headrooms_by_images(cases, progress)
                progress(f"casting to {precision}")
                made = typed_artifact(artifact, precision, path, rule)
        return replace(made, notes=(*adopted.notes, *left_out))
