"""The strongly typed ONNX file that an engine is built from."""

from __future__ import annotations

from pathlib import Path

from deblur_export.export.engines.options import Precision
from deblur_export.export.manifest import Artifact
from deblur_export.export.precision.typed import typed_artifact


def typed_path(artifact: Artifact, precision: Precision, folder: Path) -> Path:
    """Where the typed form of a file lies: the file itself if it has the precision already, else
    `net_fp16.onnx` in `folder`."""
    if artifact.manifest["precision"] == precision:
        return artifact.path
    return folder / f"{artifact.path.stem}_{precision}.onnx"


def typed_file(artifact: Artifact, precision: Precision, path: Path) -> Artifact:
    """The file in a precision, written to `path` unless it has it already.

    Raises:
        CheckFailedError: the typed graph does not compute in the precision.
        DeblurExportError: the file is in another reduced precision, or cannot be converted.
    """
    if artifact.manifest["precision"] == precision:
        return artifact
    return typed_artifact(artifact, precision, path)
