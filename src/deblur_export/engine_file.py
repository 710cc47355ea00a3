"""Engines of `deblur-export trt` as artifacts; the manifest beside an engine describes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deblur_export.artifact import (
    ENGINE_SUFFIXES,
    Artifact,
    read_artifact,
    read_sidecar,
    sidecar_path,
)
from deblur_export.engine_record import EngineRecord
from deblur_export.errors import DeblurExportError
from deblur_export.file_names import is_file

NO_ENGINE, ADVICE = "the manifest of an engine", "build it with deblur-export trt"
Shape = tuple[int, ...]


def is_engine(path: Path) -> bool:
    """Whether a path has the suffix of an engine."""
    return path.suffix.lower() in ENGINE_SUFFIXES


def read_runnable(path: Path) -> Artifact:
    """Open an exported ONNX file or an engine.

    Raises:
        DeblurExportError: see `read_engine` and `artifact.read_artifact`.
    """
    return read_engine(path) if is_engine(path) else read_artifact(path)


def read_engine(path: Path) -> Artifact:
    """Open an engine and read the manifest beside it. One that was built elsewhere has no hash in
    its manifest until it passes `verify`.

    Raises:
        DeblurExportError: there is no such file, or no manifest beside it that describes it.
    """
    if not is_file(path):
        raise DeblurExportError(f"{path}: no such file; make one with deblur-export trt")
    sidecar = sidecar_path(path)
    if not is_file(sidecar):
        raise DeblurExportError(
            f"{path}: no {sidecar.name} beside it, so its input and its PyTorch counterpart are "
            "unknown; copy that too, or build the engine with deblur-export trt"
        )
    manifest = read_sidecar(sidecar, NO_ENGINE, ADVICE)
    engine, file = manifest.engine, manifest.file
    if engine is None or (file is None and not engine.built_elsewhere):
        raise DeblurExportError(f"{sidecar}: not {NO_ENGINE}; {ADVICE}")
    artifact = Artifact(path, manifest, manifest.notes)
    if file is not None and file.sha256 != artifact.sha256:
        raise DeblurExportError(
            f"{path} is not the file that {sidecar.name} describes (SHA-256 differs); build it "
            "again"
        )
    return artifact


def engine_of(artifact: Artifact) -> EngineRecord:
    """How an engine was built.

    Raises:
        DeblurExportError: the artifact is an ONNX file.
    """
    if artifact.manifest.engine is None:
        raise DeblurExportError(f"{artifact.path} is not an engine; {ADVICE}")
    return artifact.manifest.engine


def shape_range(artifact: Artifact) -> tuple[Shape, Shape] | None:
    """Smallest and largest shape (N, C, H, W) that an engine accepts; None for an ONNX file."""
    engine = artifact.manifest.engine
    if engine is None:
        return None
    if engine.profile is None:  # built from a file of fixed shape
        fixed = tuple(size for size in artifact.manifest.input.shape if isinstance(size, int))
        return fixed, fixed
    return engine.profile.smallest, engine.profile.largest


def check_shape(artifact: Artifact, shape: Sequence[int]) -> None:
    """Check that an engine accepts images of shape (N, C, H, W).

    Raises:
        DeblurExportError: it does not; the message says which shapes it accepts.
    """
    limits = shape_range(artifact)
    if limits is None or all(
        a <= x <= b for a, x, b in zip(limits[0], shape, limits[1], strict=True)
    ):
        return
    low, high = ("x".join(map(str, limit)) for limit in limits)
    given = "x".join(map(str, shape))
    raise DeblurExportError(
        f"{artifact.path} accepts {low} to {high}, not {given}; build one with deblur-export trt "
        "--min or --max, or for larger photos use --tile"
    )
