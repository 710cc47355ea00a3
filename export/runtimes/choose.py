"""`--runtime auto`: which of the installed backends runs a file on this machine, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deblur_export.artifact import Artifact
from deblur_export.engine_file import is_engine
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.registry import DEFAULT, backend, backends
from deblur_export.precision import GraphPrecision

AUTO = "auto"


@dataclass(frozen=True)
class Chosen:
    """The name of a backend. `reason` says in one line why it was selected; it is empty if the
    user named the backend."""

    runtime: str
    reason: str = ""


def default_runtime(path: Path) -> str:
    """The name of the backend that runs a file on every machine, whatever else is installed."""
    return _engine_runtime() if is_engine(path) else DEFAULT


def choose_runtime(asked: str, artifact: Artifact, precision: GraphPrecision = "fp32") -> Chosen:
    """Select the backend of an exported file.

    This is the one that was asked for; with "auto" the backend of an engine, or the first one that
    can run the file and has an advantage over the default, otherwise the default.

    Args:
        asked: what the user asked for; the name of a backend or "auto".
        artifact: an ONNX file or an engine.
        precision: of the arithmetic; only some backends can be asked for one other than fp32.

    Raises:
        DeblurExportError: an engine for a backend that runs none, or the other way round.
    """
    path = artifact.path
    if is_engine(path):
        runtime = _engine_runtime()
        if asked not in (AUTO, runtime) or precision != "fp32":
            raise DeblurExportError(
                f"{path} is an engine: {backend(runtime).title} alone runs it, in the precision it "
                "was built in; leave --runtime and --precision out"
            )
        return Chosen(runtime, "" if asked == runtime else f"{runtime}, as it is an engine")
    if asked != AUTO:
        if backend(asked).runs_engines:
            raise DeblurExportError(
                f"{path}: {backend(asked).title} runs engines; build one with deblur-export trt "
                f"{path}"
            )
        return Chosen(asked)
    if precision != "fp32":
        return _with_precision(precision)
    refusals = []
    for runtime, candidate in backends():
        if runtime == DEFAULT or candidate.runs_engines:
            continue
        verdict = candidate.able(artifact)
        if verdict.able:
            return Chosen(runtime, f"{runtime}, as {verdict.reason}")
        refusals.append(verdict.reason)
    return Chosen(DEFAULT, f"{DEFAULT} on the CPU, as {' and '.join(refusals)}")


def _engine_runtime() -> str:
    return next(name for name, candidate in backends() if candidate.runs_engines)


def _with_precision(precision: GraphPrecision) -> Chosen:
    able = [name for name, candidate in backends() if precision in candidate.precisions]
    alone = " alone" * (len(able) == 1)
    return Chosen(able[0], f"{able[0]}, which{alone} has --precision {precision}")
