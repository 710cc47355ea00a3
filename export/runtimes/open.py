"""Open a file on one of the backends, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.backend import Opening
from deblur_export.export.runtimes.registry import DEFAULT, backend, backends
from deblur_export.export.runtimes.session import Session
from deblur_export.precision import GraphPrecision


def open_session(
    file: ModelFile | Path,
    runtime: str = DEFAULT,
    extra_outputs: tuple[str, ...] = (),
    precision: GraphPrecision = "fp32",
    threads: int = 0,
    plugins: Sequence[Path] = (),
) -> Session:
    """Load a file.

    Args:
        file: an ONNX file; an engine for a backend that takes engines.
        runtime: the name of a backend.
        extra_outputs: inner values to return as well.
        precision: of the arithmetic; most backends compute as the graph says.
        threads: 0 for the backend's choice.
        plugins: libraries of custom ops that an engine was built with.

    Raises:
        DeblurExportError: there is no such backend, it is not installed, does not have the
            precision, or cannot load the file.
    """
    check_precision(runtime, precision)
    opening = Opening(extra_outputs, precision, threads, tuple(plugins))
    return backend(runtime).load(ModelFile(file) if isinstance(file, Path) else file, opening)


def open_judged(
    artifact: Artifact,
    runtime: str,
    extra_outputs: tuple[str, ...] = (),
    precision: GraphPrecision = "fp32",
    plugins: Sequence[Path] = (),
) -> Session:
    """Load a file of ours as `verify` judges it; arguments and errors as of `open_session`."""
    check_precision(runtime, precision)
    opening = Opening(extra_outputs, precision, plugins=tuple(plugins))
    return backend(runtime).load_judged(artifact, opening)


def check_precision(runtime: str, precision: GraphPrecision) -> None:
    """Whether a backend can be asked for a precision; float32 is what the graph says.

    Raises:
        DeblurExportError: it cannot; names those that can.
    """
    asked = backend(runtime)
    if precision != "fp32" and precision not in asked.precisions:
        able = ", ".join(other.title for _, other in backends() if precision in other.precisions)
        raise DeblurExportError(
            f"{asked.title} computes in the precision of the graph; --precision is for {able}"
        )
