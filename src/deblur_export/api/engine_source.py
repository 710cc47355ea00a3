"""Selects or makes the ONNX file from which an engine is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deblur_export.artifact import Artifact, read_artifact
from deblur_export.calibration.calibrate import MAX_DROP, Calibration, calibrate, int8_path
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.builders import Choice
from deblur_export.export.engines.options import precision_of
from deblur_export.export.pipeline import ExportOptions, default_path, export_onnx
from deblur_export.export.reparam.prepare import Progress
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.precision import EnginePrecision


def exported_for_engine(model: LoadedModel, folder: Path, progress: Progress) -> Artifact:
    """Export a network into `folder` in the form without loops and data-dependent shapes, which
    TensorRT and TensorRT for RTX both build.

    Raises:
        CheckFailedError, DeblurExportError: see `pipeline.export_onnx`.
    """
    options = ExportOptions(target="rtx")
    return export_onnx(model, options, folder / default_path(model, options), progress)


@dataclass(frozen=True)
class Data:
    """The images on which an int8 engine of a float32 file is calibrated; see `Calibration`."""

    images: Path | None = None
    dataset: Path | None = None
    max_drop: float = MAX_DROP

    def __bool__(self) -> bool:
        return self.images is not None or self.dataset is not None


def calibrated_for_engine(
    artifact: Artifact, choice: Choice, data: Data, folder: Path, progress: Progress
) -> Artifact:
    """The int8 form of a file, `net_int8.onnx` in `folder`; an int8 file is returned unchanged.

    Raises:
        CheckFailedError, DeblurExportError: as `calibrate`; also if there is nothing to calibrate
            on, or the builder does not support the file.
    """
    if artifact.manifest.precision == "int8":
        return artifact
    if not data:
        raise DeblurExportError(
            f"--int8: {artifact.path} is {artifact.manifest.precision}, and int8 needs images "
            "to calibrate on: give --images or --dataset, or the file of deblur-export calibrate "
            "instead"
        )
    if choice.builder is not None:
        choice.builder.check(artifact)
    options = Calibration(data.images, data.dataset, max_drop=data.max_drop)
    path = folder / int8_path(artifact).name
    return calibrate(artifact, options, path, progress).artifact


def only_artifact(folder: Path, precision: EnginePrecision | None, data: Data) -> Artifact:
    """The only exported ONNX file in a folder.

    A file in reduced precision that an earlier call wrote beside its fp32 original does not count
    as a second one, unless it has the requested precision and the original is gone. For int8
    without images to calibrate on, a calibrated file is preferred.

    Args:
        folder: its subfolders are not searched.
        precision: the requested precision; None if none was requested.
        data: images to calibrate on.

    Raises:
        DeblurExportError: there is no such file, or several; the message says which files exist.
    """
    exported, others = [], []
    for path in sorted(folder.glob("*.onnx")):
        try:
            exported.append(read_artifact(path))
        except DeblurExportError:
            others.append(path.name)
    calibrated = precision is not None and "int8" in precision and not data
    candidates: list[Artifact] = []
    for wanted in ("int8",) * calibrated + ("fp32", precision):
        candidates = candidates or [
            artifact for artifact in exported if wanted in (None, precision_of(artifact.manifest))
        ]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(artifact.path.name for artifact in candidates)
        raise DeblurExportError(
            f"several files of deblur-export are in this folder, name one of them: {names}"
        )
    found = "; ".join(
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("in another precision", [artifact.path.name for artifact in exported]),
            ("not of deblur-export or damaged", others),
        )
        if names
    )
    raise DeblurExportError(
        f"no ONNX file of deblur-export in this folder ({found or 'no .onnx file at all'}); name "
        "one, or give --model"
    )
