"""Checks that a file can be converted to another precision."""

from __future__ import annotations

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError


def require_float32(artifact: Artifact, wanted: str) -> None:
    """Check that a file and its input are float32, which every conversion starts from.

    Args:
        artifact: an exported file.
        wanted: the precision of the conversion, for the message.

    Raises:
        DeblurExportError: the file or its input is in another precision.
    """
    own, dtype = artifact.manifest.precision, artifact.manifest.input.dtype
    if own != "fp32" or dtype != "float32":
        detail = "" if dtype == "float32" else f" with {dtype} input"
        raise DeblurExportError(
            f"{artifact.path} is {own}{detail} and cannot become {wanted}: start from a float32 "
            "file, deblur-export onnx without --precision and --io"
        )
