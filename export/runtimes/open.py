"""Opens a file on one of the backends, by name."""

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
        file: an ONNX file, or an engine for a backend that runs engines.
        runtime: the name of a backend.
        extra_outputs: names of intermediate values to return in addition to the outputs.
        precision: of the arithmetic; most backends support only the precision of the graph.
        threads: number of CPU threads; 0 leaves the number to the backend.
        plugins: libraries of the custom ops that an engine was built with.

    Raises:
        DeblurExportError: there is no such backend, it is not installed, does not have the
            precision, or cannot load the file.
    """
    check_precision(runtime, precision)
    opening = Opening(extra_outputs, precision, threads, tuple(plugins))
    return backend(runtime).load(ModelFile(file) if isinstance(file, Path) else file, opening)


def open_reproducible(
    artifact: Artifact,
    runtime: str,
    extra_outputs: tuple[str, ...] = (),
    precision: GraphPrecision = "fp32",
    plugins: Sequence[Path] = (),
) -> Session:
    """Load an exported file for `verify`, whose result must be the same on every machine.

    Arguments and errors are those of `open_session`.
    """
    check_precision(runtime, precision)
    opening = Opening(extra_outputs, precision, plugins=tuple(plugins))
    return backend(runtime).load_reproducible(artifact, opening)


def check_precision(runtime: str, precision: GraphPrecision) -> None:
    """Check that a backend can compute in a precision; fp32 stands for that of the graph.

    Raises:
        DeblurExportError: it cannot; the message names the backends that can.
    """
    asked = backend(runtime)
    if precision != "fp32" and precision not in asked.precisions:
        able = ", ".join(other.title for _, other in backends() if precision in other.precisions)
        raise DeblurExportError(
            f"{asked.title} computes in the precision of the graph; --precision is for {able}"
        )
