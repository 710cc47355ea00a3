"""The parity report: what was compared, the differences, and the first layer that diverges.

It is plain data. JSON (`to_json`) and a table in the terminal (`render_table`) are here, HTML is in
`report_html`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deblur_export.export.parity.ground_truth import GroundTruthReport, PairResult, Scores
from deblur_export.export.parity.ground_truth_report import ground_truth_table

# The key of `ParityReport.tolerance` that bounds `LayerError.rms_rel`, and the one for an image.
LAYER_TOLERANCE, PIXEL_TOLERANCE = "layer_rms_rel", "max_abs"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CaseImages:
    """Images of a case, only for the HTML report.

    Attributes:
        input, reference, candidate: uint8 [H,W,3], RGB.
        error: float32 [H,W], largest absolute difference over the channels before rounding to 8
            bits, for images in 0..1.
    """

    input: npt.NDArray[np.uint8]
    reference: npt.NDArray[np.uint8]
    candidate: npt.NDArray[np.uint8]
    error: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """The comparison of candidate and reference for one input.

    Attributes:
        name, shape: of the input.
        max_abs, mean_abs: largest and mean absolute difference of images in 0..1.
        psnr, psnr_8bit: PSNR in dB, and that of the images rounded to 8 bits.
        ssim: SSIM.
        flips, choices: number of discrete choices (mask pixels, selected pixels) that differ, and
            of all; None if there are none.
        passed: whether the case passed.
        reason: why it failed, or "".
        candidate_float64, reference_float64: largest errors against the network in float64, or None
            if it was not run.
        without_rounding: of a file in low precision, the largest absolute error of its graph
            without the roundings; None for other files, or if there is no graph.
        photo: whether the input is a photo, and not noise.
        peak: what the tolerances are multiplied by, see `metrics.peak`.
        images: images for the HTML report.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    mean_abs: float
    psnr: float
    psnr_8bit: float
    ssim: float
    flips: int | None
    choices: int | None
    passed: bool
    reason: str = ""
    candidate_float64: float | None = None
    reference_float64: float | None = None
    without_rounding: float | None = None
    photo: bool = False
    peak: float = 1.0
    images: CaseImages | None = dataclasses.field(default=None, compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class LayerError:
    """The error of the output of a layer.

    Attributes:
        name: of the layer.
        max_abs: largest absolute difference.
        rms_rel: RMS of the difference divided by the RMS of the reference.
        diverged: whether `rms_rel` is above the tolerance.
    """

    name: str
    max_abs: float
    rms_rel: float
    diverged: bool


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """The results of a verification.

    Attributes:
        artifact, reference, candidate: descriptions of what was compared.
        tolerance: bounds by name of the metric.
        cases: the results for all inputs.
        layers: errors of the layers in execution order; may be empty.
        first_diverged: name of the first layer that diverges, or None.
        manifest: of the artifact.
        notes: notes to the user.
        ground_truth: the comparison with ground truth, or None.
        provenance: where, when and of what the report was made, by name.
        reference_name: what messages call the reference.
    """

    artifact: str
    reference: str
    candidate: str
    tolerance: dict[str, float]
    cases: tuple[CaseResult, ...]
    layers: tuple[LayerError, ...] = ()
    first_diverged: str | None = None
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ground_truth: GroundTruthReport | None = None
    provenance: dict[str, str] = dataclasses.field(default_factory=dict)
    reference_name: str = "PyTorch"

    @property
    def passed(self) -> bool:
        """Whether there is at least one case and every case passed."""
        cases = bool(self.cases) and all(case.passed for case in self.cases)
        return cases and (self.ground_truth is None or self.ground_truth.passed)

    @property
    def verdict(self) -> str:
        """The result in one sentence that begins with PASS or FAIL."""
        failed, total = sum(not case.passed for case in self.cases), len(self.cases)
        cases = "1 case" if total == 1 else f"{total} cases"
        if not total:
            return "FAIL: no case was compared."
        if failed:
            return f"FAIL: {failed} of {cases} outside the tolerance."
        within = f"{cases} compared, all within tolerance"
        if self.ground_truth is None:
            return f"PASS: {within}."
        if self.ground_truth.passed:
            return f"PASS: {within}; {self.ground_truth.summary}."
        return f"FAIL: {self.ground_truth.reason}."


def to_json(report: ParityReport) -> str:
    """The report without images as strict JSON; the same report gives the same text.

    JSON has no infinity: numbers that are not finite are the strings "Infinity", "-Infinity" and
    "NaN", which float() in Python and Number() in JavaScript can read. Fields are in the order of
    the dataclasses; keys of `tolerance` and `manifest` are sorted.
    """
    document = {"passed": report.passed, "verdict": report.verdict} | _fields(report)
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def plain(value: object) -> Any:
    """Convert a value to plain JSON types; non-finite floats and unknown objects become strings."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else _non_finite(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, GroundTruthReport):
        reference, candidate = value.means()
        found: dict[str, object] = {"passed": value.passed, "drop": value.drop}
        found |= {"reference": reference, "candidate": candidate}
        return {name: plain(part) for name, part in found.items()} | _fields(value)
    if isinstance(value, PairResult):
        return _fields(value) | {"drop": plain(value.drop)}
    if isinstance(value, (CaseResult, LayerError, Scores)):
        return _fields(value)
    return str(value)


def render_table(report: ParityReport, console: Console) -> None:
    """Print a row for each case, the failures, the tolerance, and the first layer that diverges."""
    columns = ["max abs", "mean abs", "PSNR", "8-bit", "SSIM", "flips"]
    table = Table(title=Text(f"{report.reference}  vs  {report.candidate}"), title_justify="left")
    table.add_column("case", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for case in report.cases:
        verdict = Text("pass", style="green") if case.passed else Text("FAIL", style="bold red")
        table.add_row(
            *(Text(cell) for i, cell in enumerate(case_cells(case)) if i != SHAPE_CELL), verdict
        )
    console.print(table)
    for case in report.cases:
        if not case.passed:
            console.print(Text(f"{case.name}: {case.reason or 'failed'}", style="red"))
    console.print(Text(f"tolerance: {tolerance_text(report)}", style="dim"))
    if against := float64_text(report):
        console.print(Text(against))
    if report.ground_truth is not None:
        console.print(ground_truth_table(report.ground_truth, report.reference_name))
    if report.first_diverged is not None:
        console.print(Text(f"first layer that diverges: {report.first_diverged}", style="red"))
    console.print(Text(report.verdict, style="bold green" if report.passed else "bold red"))


SHAPE_CELL = 1  # left out in the terminal, where the name contains the shape


def case_cells(case: CaseResult) -> list[str]:
    """The cells of a row: name, shape, max abs, mean abs, PSNR, PSNR 8-bit, SSIM and flips."""
    flips = "-" if case.flips is None else f"{case.flips}"
    if case.flips is not None and case.choices is not None:
        flips += f"/{case.choices}"
    return [
        case.name,
        "x".join(str(size) for size in case.shape),
        error_text(case.max_abs),
        error_text(case.mean_abs),
        "inf" if case.psnr == math.inf else f"{case.psnr:.2f}",
        "inf" if case.psnr_8bit == math.inf else f"{case.psnr_8bit:.2f}",
        f"{case.ssim:.4f}",
        flips,
    ]


def error_text(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"


def tolerance_text(report: ParityReport) -> str:
    return ", ".join(f"{name} {bound:g}" for name, bound in report.tolerance.items()) or "none"


def float64_text(report: ParityReport) -> str:
    """One line about the errors against float64, or "" if the network was not run in float64."""
    pairs = [
        (case.candidate_float64, case.reference_float64)
        for case in report.cases
        if case.candidate_float64 is not None and case.reference_float64 is not None
    ]
    if not pairs:
        return ""
    candidate, reference = (error_text(max(column)) for column in zip(*pairs, strict=True))
    return f"max error against float64: {candidate}, {report.reference_name} float32 {reference}"


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _fields(
    value: CaseResult | LayerError | ParityReport | GroundTruthReport | PairResult | Scores,
) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(value))
    return {name: plain(getattr(value, name)) for name in names if name != "images"}
