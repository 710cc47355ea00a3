"""Engines of `deblur-export trt` as artifacts: what a file takes stands in the manifest beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.manifest import FORMAT, Artifact, file_sha256, read_artifact, sidecar_path

SUFFIXES = (".engine", ".plan", ".trt")
Shape = tuple[int, ...]


def is_engine(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def read_runnable(path: Path) -> Artifact:
    """An ONNX file or an engine of ours.

    Raises:
        DeblurExportError: see `read_engine` and `manifest.read_artifact`.
    """
    return read_engine(path) if is_engine(path) else read_artifact(path)


def read_engine(path: Path) -> Artifact:
    """An engine and the manifest beside it.

    Raises:
        DeblurExportError: there is no such file, no manifest of an engine beside it, or another
            engine's.
    """
    if not path.is_file():
        raise DeblurExportError(f"{path}: no such file; make one with deblur-export trt")
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        raise DeblurExportError(
            f"{path}: no {sidecar.name} beside it, so its input and its PyTorch counterpart are "
            "unknown; copy that too, or build the engine with deblur-export trt"
        )
    try:
        manifest = json.loads(sidecar.read_text(encoding="utf-8"))
        recorded, known = manifest["file"]["sha256"], manifest["format"]
        manifest["engine"]["backend"], manifest["engine"]["profile"]
    except (ValueError, KeyError, TypeError) as error:
        raise DeblurExportError(
            f"{sidecar}: not the manifest of an engine; build it with deblur-export trt"
        ) from error
    if known != FORMAT:
        raise DeblurExportError(
            f"{sidecar}: manifest format {known} is not {FORMAT}; use the deblur-export version "
            "that wrote it, or build the engine again"
        )
    if recorded != file_sha256(path):
        raise DeblurExportError(
            f"{path} is not the file that {sidecar.name} describes (SHA-256 differs); build it "
            "again"
        )
    return Artifact(path, manifest)


def shape_range(artifact: Artifact) -> tuple[Shape, Shape] | None:
    """Smallest and largest (N, 3, H, W) that an engine takes; None for an ONNX file."""
    engine = artifact.manifest.get("engine")
    if engine is None:
        return None
    profile = engine["profile"]
    if profile is None:  # built from a file of fixed shape
        fixed = tuple(artifact.manifest["input"]["shape"])
        return fixed, fixed
    return tuple(profile["smallest"]), tuple(profile["largest"])


def check_shape(artifact: Artifact, shape: Sequence[int]) -> None:
    """Raises DeblurExportError where an engine does not take an image [N, 3, H, W]."""
    limits = shape_range(artifact)
    if limits is None or all(
        a <= x <= b for a, x, b in zip(limits[0], shape, limits[1], strict=True)
    ):
        return
    low, high = ("x".join(map(str, limit)) for limit in limits)
    given = "x".join(map(str, shape))
    raise DeblurExportError(
        f"{artifact.path} takes {low} to {high}, not {given}; build one with deblur-export trt "
        "--min or --max, or for larger photos use --tile"
    )
