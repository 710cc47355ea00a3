"""Judges the graph of a file in low precision without its roundings, as that of a float32 file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.engine_file import engine_of
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.images.cases import Case
from deblur_export.export.parity.float32_form import float32_form
from deblur_export.export.parity.reference import Reference
from deblur_export.export.parity.report import CaseResult
from deblur_export.export.runtimes.emulated_session import Float32Session
from deblur_export.precision import FP32


class GraphCheck:
    """The graph of a file without its roundings, and what it should compute.

    Args:
        file: the ONNX file.
        reference: what it should compute.
        deciding: the decisions of the reference whose choices are values of the graph.

    Raises:
        CheckFailedError: a QuantizeLinear of the file has no inverse.
        DeblurExportError: the graph does not load.
    """

    def __init__(self, file: ModelFile, reference: Reference, deciding: Sequence[str]) -> None:
        self.file, self.reference, self.deciding = file, reference, tuple(deciding)
        self.session = self.open(self.deciding)

    def open(self, extra_outputs: tuple[str, ...]) -> Float32Session:
        """Open it with values of the graph as further outputs."""
        path = self.file.path
        try:
            form = float32_form(self.file.proto, self.reference.weights())
        except CheckFailedError as error:
            raise CheckFailedError(f"{path}: {error}") from error
        return Float32Session(form, "without roundings", path, extra_outputs)

    def judged(self, case: Case, result: CaseResult) -> CaseResult:
        """The result of a case, which fails if the graph without roundings does not match the
        reference in float32."""
        found = self.session.run({"image": case.image})
        choices = {name: found[name] for name in self.deciding}
        expected = self.reference.run(case.image, choices)
        error = float(np.abs(found["restored"] - expected.restored).max())
        reasons = [result.reason] * bool(result.reason)
        bound = FP32.tolerances.max_abs * result.peak
        if not error <= bound:
            reasons.append(
                f"its graph without roundings: max error {error:.1e} is above {bound:.0e}"
            )
        reasons += [
            f"without roundings, {check.reason}" for check in expected.checks if check.reason
        ]
        return replace(
            result, without_rounding=error, passed=not reasons, reason="; ".join(reasons)
        )


def graph_file(artifact: Artifact) -> Artifact | None:
    """The ONNX file of an artifact: itself, or that from which an engine was built if it lies
    beside the engine, unchanged; otherwise None."""
    if artifact.manifest.engine is None:
        return artifact
    source = engine_of(artifact).onnx
    file = Artifact(artifact.path.parent / source.file, artifact.manifest)
    try:
        same = file.path.is_file() and file.sha256 == source.sha256
    except DeblurExportError:  # it is no ONNX file
        return None
    return file if same else None


def note_on_graph(artifact: Artifact, check: GraphCheck | None, cases: Sequence[CaseResult]) -> str:
    """What the report says about the graph without roundings."""
    if check is None:
        name = engine_of(artifact).onnx.file
        return (
            f"{name}, from which the engine was built, is not beside it, so that its graph was not "
            "judged; an error within the tolerance may be a wrong graph"
        )
    errors = [case.without_rounding for case in cases if case.without_rounding is not None]
    worst = max(errors, default=0.0)
    return (
        f"without its roundings, the graph differs from {check.reference.name} by "
        f"{worst:.1e} at most, as a float32 file may by {FP32.tolerances.max_abs:.0e}"
    )
