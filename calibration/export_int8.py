"""Export a network to an int8 file in one step: export in float32, then calibrate."""

from __future__ import annotations

from pathlib import Path

from deblur_export.artifact import Artifact
from deblur_export.calibration.calibrate import (
    Calibration,
    calibrate,
    check_output,
    check_sources,
)
from deblur_export.export.pipeline import ExportOptions, default_path, export_onnx
from deblur_export.export.reparam.prepare import Progress
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.temporary import temporary_folder


def default_int8_path(model: LoadedModel, options: ExportOptions) -> Path:
    """The default file name, `m2aenet_base_int8.onnx`."""
    name = default_path(model, options)
    return name.with_name(f"{name.stem}_int8.onnx")


def export_int8(
    model: LoadedModel,
    options: ExportOptions,
    calibration: Calibration,
    path: Path,
    progress: Progress = lambda step: None,
) -> Artifact:
    """Export a network and calibrate it; the temporary float32 file is deleted.

    Args:
        model: the network.
        options: of the float32 export.
        calibration: options of the calibration.
        path: the .onnx file to write.
        progress: called with a line of text for each step.

    Raises:
        CheckFailedError, DeblurExportError: as `export_onnx` and `calibrate`. Errors in the
            calibration options are raised before the export if possible.
    """
    check_output(path)
    check_sources(calibration)
    with temporary_folder() as folder:
        artifact = export_onnx(model, options, folder / default_path(model, options), progress)
        return calibrate(artifact, calibration, path, progress).artifact
