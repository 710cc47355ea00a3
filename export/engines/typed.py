"""Makes the strongly typed ONNX file from which an engine is built."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.check import Claim
from deblur_export.export.engines.options import BuildOptions, precision_of
from deblur_export.export.precision.half_io import half_io_file, has_half_io
from deblur_export.export.precision.int8_mixed import lower_high_precision
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.precision import LOW, EnginePrecision, GraphPrecision


def typed_path(artifact: Artifact, options: BuildOptions, folder: Path) -> Path:
    """The path of the typed form of a file: the file itself if it already has the requested types,
    otherwise `net_fp16.onnx`, `net_int8_fp16.onnx` for `net_int8.onnx`, or `net_fp16_io16.onnx`
    with float16 input and output, in `folder`."""
    suffix = ""
    if precision_of(artifact.manifest) != options.precision:
        suffix += f"_{options.precision.removeprefix('int8+')}"
    if options.half_io and not has_half_io(artifact):
        suffix += "_io16"
    return folder / f"{artifact.path.stem}{suffix}.onnx" if suffix else artifact.path


def typed_file(artifact: Artifact, options: BuildOptions, path: Path) -> Artifact:
    """The file in the requested precision and with the requested input type, written to `path`
    unless it already has both.

    Raises:
        CheckFailedError: the typed graph does not compute in the precision.
        DeblurExportError: the file is in another reduced precision, or cannot be converted.
    """
    typed = _in_precision(artifact, options.precision, path)
    return half_io_file(typed, path) if options.half_io and not has_half_io(typed) else typed


def _in_precision(artifact: Artifact, precision: EnginePrecision, path: Path) -> Artifact:
    own = precision_of(artifact.manifest)
    if own == precision:
        return artifact
    if own == "int8" and precision.startswith("int8+"):
        high = cast(GraphPrecision, precision.removeprefix("int8+"))
        return lower_high_precision(artifact, high, path)
    if own == "int8" and precision in LOW:
        raise DeblurExportError(
            f"{artifact.path} is int8; add --int8 to --{precision} for int8 with {precision} "
            "around it, or give the float32 file"
        )
    if precision not in LOW:
        raise DeblurExportError(
            f"{artifact.path} is {own} and cannot become {precision}: start from a float32 file, "
            "or for int8 from one of deblur-export calibrate"
        )
    return typed_artifact(artifact, cast(GraphPrecision, precision), path)


def check_layout(artifact: Artifact) -> None:
    """Check that TensorRT supports the QDQ pairs of an int8 file.

    Raises:
        DeblurExportError: its activations are unsigned.
    """
    layout = artifact.manifest.layout
    if layout == "cpu":
        raise DeblurExportError(
            f"{artifact.path} was calibrated with --layout {layout}, whose unsigned activations "
            "no TensorRT supports; calibrate it with --layout tensorrt"
        )


def claim_of(artifact: Artifact) -> Claim:
    """What the manifest of a file states about its engine."""
    return Claim(str(artifact.path), artifact.manifest.int8_layers)
