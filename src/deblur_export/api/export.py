"""From a network to an ONNX file: `export_onnx` and `calibrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from deblur_export.api.common import (
    TORCH_LOCK,
    PathLike,
    Progress,
    as_artifact,
    as_path,
    quiet,
)
from deblur_export.api.loading import load_model
from deblur_export.artifact import Artifact, with_sidecar
from deblur_export.calibration import calibrate as calibration
from deblur_export.calibration.calibrate import MAX_DROP, Calibrated, Calibration, int8_path
from deblur_export.calibration.calibrators import Method
from deblur_export.calibration.export_int8 import default_int8_path, export_int8
from deblur_export.calibration.qdq import Layout
from deblur_export.errors import DeblurExportError
from deblur_export.export import pipeline
from deblur_export.export.graph import inlined_path
from deblur_export.export.inline import inlined_file
from deblur_export.export.pipeline import ExportOptions, default_path
from deblur_export.export.precision import headroom_rule
from deblur_export.export.precision.half_io import half_io_file
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.onnx_reading import graph_errors
from deblur_export.outputs import check_outputs
from deblur_export.precision import PRECISIONS, PrecisionName
from deblur_export.target import TARGETS, TargetName


def export_onnx(
    model: LoadedModel | str,
    output: PathLike | None = None,
    *,
    target: TargetName = "portable",
    shape: tuple[int, int, int, int] | None = None,
    reparam: bool = True,
    precision: PrecisionName = "fp32",
    io: Literal["fp32", "fp16"] = "fp32",
    ranges: PathLike | None = None,
    rescale: bool = False,
    images: PathLike | None = None,
    dataset: PathLike | None = None,
    layout: Layout = "tensorrt",
    max_psnr_drop: float = MAX_DROP,
    inline: bool = False,
    progress: Progress = quiet,
) -> Artifact:
    """Export a network to one ONNX file and its manifest; the options of `deblur-export onnx`.

    Args:
        model: what `load_model` or `adapt` returned, or a network's name.
        output: the .onnx file to write; None is `MODEL_VARIANT.onnx` in the working folder, with
            target and precision in its name where they are not the default.
        target: which runtime the file is shaped for.
        shape: fixed input (N, C, H, W); None keeps batch, height and width dynamic.
        reparam: apply the exact folds, each verified in float64.
        precision: of the graph. int8 is calibrated on `images` or `dataset`.
        io: type of input and output.
        ranges, images: fp16 only: a file of `deblur-export ranges --json`, or a folder of photos
            to observe; tensors close to float16's limits stay in float32.
        rescale: with `ranges` or `images`, for fp16 and fp32: divide residual streams that exceed
            float16 by a power of two, which is exact.
        dataset, layout, max_psnr_drop: int8 only, see `calibrate`.
        inline: also write `NAME.inlined.onnx` beside the file if that has custom ops: the same
            graph with standard operators in their place, for stock OpenVINO.
        progress: called with a description of each step.

    Raises:
        CheckFailedError: a fold changed the output, or too little of the graph is in the precision.
        DeblurExportError: options that exclude each other, weights out of range, an output that
            cannot be written.
    """
    for name, value, known in (
        ("target", target, TARGETS),
        ("precision", precision, PRECISIONS),
        ("io", io, ("fp32", "fp16")),
    ):
        if value not in known:
            raise DeblurExportError(f"{name} is {value!r}, not one of {', '.join(known)}")
    with TORCH_LOCK:
        loaded = load_model(model) if isinstance(model, str) else model
        options = ExportOptions(target, shape, reparam)
        if precision == "int8":
            path = as_path(output) or default_int8_path(loaded, options)
        else:
            options = replace(options, precision=precision)
            path = as_path(output) or default_path(loaded, options)
        outputs = [*with_sidecar("the exported file", path)]
        if inline:
            outputs += with_sidecar("the file with inlined ops", inlined_path(path))
        check_outputs(
            outputs,
            [Path(loaded.weights), *map(as_path, (ranges, images, dataset))],
        )
        if precision == "int8":
            if ranges is not None or rescale:
                raise DeblurExportError(
                    "ranges and rescale are for fp16; int8 needs images or a dataset"
                )
            chosen = Calibration(
                as_path(images), as_path(dataset), layout=layout, max_drop=max_psnr_drop
            )
            artifact = export_int8(loaded, options, chosen, path, progress)
        else:
            size = shape or ("batch", loaded.images.channels, "height", "width")
            headrooms = headroom_rule(
                precision, as_path(ranges), as_path(images), size, rescale, progress
            )
            options = replace(options, headrooms=headrooms, rescale=rescale)
            artifact = pipeline.export_onnx(loaded, options, path, progress)
        if io == "fp16":
            artifact = half_io_file(artifact, artifact.path)
        if inline and artifact.manifest.custom_ops:
            progress("inlining the custom ops")
            inlined_file(artifact, inlined_path(path))
        return artifact


def calibrate(
    file: Artifact | PathLike,
    output: PathLike | None = None,
    *,
    images: PathLike | None = None,
    dataset: PathLike | None = None,
    method: Method = "mse",
    layout: Layout = "tensorrt",
    count: int = 48,
    crop: int = 256,
    max_psnr_drop: float = MAX_DROP,
    whole: bool = False,
    progress: Progress = quiet,
) -> Calibrated:
    """Quantize a float32 file to int8 within a budget of PSNR; the options of `deblur-export
    calibrate`.

    Args:
        file: a float32 artifact or its path.
        output: the .onnx file to write; None is `FILE_int8.onnx` beside it.
        images: folder of photos to calibrate on.
        dataset: folder of `deblur-export pairs`: the loss of PSNR is then measured against its
            sharp images, and without `images` its training part is calibrated on.
        method: how clipping ranges follow from the histograms of activations.
        layout: "tensorrt" for symmetric int8 activations, "cpu" for uint8 ones.
        count, crop: how many images, and the side in pixels of what is cut out of photos.
        max_psnr_drop: allowed loss in dB.
        whole: measure every block and every step, even if all of int8 is within the budget.
        progress: called with a description of each step.

    Returns:
        The search and its result; `.artifact` is the int8 file.

    Raises:
        CheckFailedError: no block stays within the budget.
        DeblurExportError: the file is not float32, there are no images, or the output cannot be
            written.
    """
    artifact = as_artifact(file)
    path = as_path(output) or int8_path(artifact)
    check_outputs(
        with_sidecar("the int8 file", path),
        [*artifact.files, as_path(images), as_path(dataset)],
    )
    options = Calibration(
        as_path(images), as_path(dataset), method, layout, count, crop, max_psnr_drop, whole
    )
    with TORCH_LOCK, graph_errors(artifact.path):
        return calibration.calibrate(artifact, options, Path(path), progress)
