"""What a file of ours must be for others to be made of it."""

from __future__ import annotations

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError


def require_float32(artifact: Artifact, wanted: str) -> None:
    """What other precisions are made of; `wanted` says which, for the message.

    Raises:
        DeblurExportError: the file is in another precision, or its input is.
    """
    own, dtype = artifact.manifest.precision, artifact.manifest.input.dtype
    if own != "fp32" or dtype != "float32":
        detail = "" if dtype == "float32" else f" with {dtype} input"
        raise DeblurExportError(
            f"{artifact.path} is {own}{detail} and cannot become {wanted}: start from a float32 "
            "file, deblur-export onnx without --precision and --io"
        )
