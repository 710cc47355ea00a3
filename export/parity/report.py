"""The parity report: what was compared with what, how close it came, and where it first departed.

Plain data. JSON (`to_json`) and a terminal table (`render_table`) here; HTML in `report_html`.
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

from deblur_export.export.parity.ground_truth import PairResult, Scores, TruthReport
from deblur_export.export.parity.ground_truth_report import truth_table

# The key of `ParityReport.tolerance` that bounds `LayerError.rms_rel`, and the one for an image.
LAYER_TOLERANCE, PIXEL_TOLERANCE = "layer_rms_rel", "max_abs"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CaseImages:
    """Pictures of one case, for the HTML report only.

    `input`, `reference`, `candidate`: uint8 [H,W,3], RGB. `error`: float32 [H,W], the largest
    absolute difference over the channels, in the 0..1 range of the images, before rounding.
    """

    input: npt.NDArray[np.uint8]
    reference: npt.NDArray[np.uint8]
    candidate: npt.NDArray[np.uint8]
    error: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """One input through both sides. `reason` says why it failed; empty if it passed.

    `flips` of `choices` discrete choices differ (mask pixels, selected pixels), None without any.
    `candidate_float64` and `reference_float64` are the largest errors of the two sides against
    the network in float64, None if it was not run.
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
    images: CaseImages | None = dataclasses.field(default=None, compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class LayerError:
    """One layer's output. `rms_rel`: RMS of the difference over RMS of the reference."""

    name: str
    max_abs: float
    rms_rel: float
    departed: bool


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Everything that one comparison found; `tolerance` maps a metric's name to its bound, `notes`
    are for the user, `truth` is what the sharp images of pairs say."""

    artifact: str
    reference: str
    candidate: str
    tolerance: dict[str, float]
    cases: tuple[CaseResult, ...]
    layers: tuple[LayerError, ...] = ()
    first_departed: str | None = None
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    truth: TruthReport | None = None

    @property
    def passed(self) -> bool:
        """Every case passed, and there was one: nothing compared is nothing proved."""
        cases = bool(self.cases) and all(case.passed for case in self.cases)
        return cases and (self.truth is None or self.truth.passed)

    @property
    def verdict(self) -> str:
        """The outcome in one plain sentence, beginning with PASS or FAIL."""
        failed, total = sum(not case.passed for case in self.cases), len(self.cases)
        cases = "1 case" if total == 1 else f"{total} cases"
        if not total:
            return "FAIL: no case was compared."
        if failed:
            return f"FAIL: {failed} of {cases} outside the tolerance."
        within = f"{cases} compared, all within tolerance"
        if self.truth is None:
            return f"PASS: {within}."
        if self.truth.passed:
            return f"PASS: {within}; {self.truth.summary}."
        return f"FAIL: {self.truth.reason}."


def to_json(report: ParityReport) -> str:
    """The report as strict JSON, images left out; the same report gives the same text.

    JSON has no infinity: non-finite numbers are the strings "Infinity", "-Infinity" and "NaN",
    which Python's float() and JavaScript's Number() read back. Fields come in the order of the
    dataclasses; keys of `tolerance` and `manifest` are sorted.
    """
    document = {"passed": report.passed, "verdict": report.verdict} | _fields(report)
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: object) -> Any:
    """`value` as JSON can hold it: non-finite floats and unknown objects become strings."""
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
    if isinstance(value, TruthReport):
        theirs, ours = value.means()
        found = {"passed": value.passed, "drop": value.drop, "reference": theirs, "candidate": ours}
        return {name: plain(part) for name, part in found.items()} | _fields(value)
    if isinstance(value, PairResult):
        return _fields(value) | {"drop": plain(value.drop)}
    if isinstance(value, (CaseResult, LayerError, Scores)):
        return _fields(value)
    return str(value)


def render_table(report: ParityReport, console: Console) -> None:
    """Print one row a case, then the failures, the tolerance, and the first layer that departs."""
    columns = ["max abs", "mean abs", "PSNR", "8-bit", "SSIM", "flips"]
    table = Table(title=Text(f"{report.reference}  vs  {report.candidate}"), title_justify="left")
    table.add_column("case", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
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
    if report.truth is not None:
        console.print(truth_table(report.truth))
    if report.first_departed is not None:
        console.print(Text(f"first layer that departs: {report.first_departed}", style="red"))
    console.print(Text(report.verdict, style="bold green" if report.passed else "bold red"))


SHAPE_CELL = 1  # left out on the terminal, where the name already says it


def case_cells(case: CaseResult) -> list[str]:
    """The cells of a case's row: name, shape, max abs, mean abs, PSNR, PSNR 8-bit, SSIM, flips."""
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
    """One line about the errors against float64; empty if it was not run."""
    pairs = [
        (case.candidate_float64, case.reference_float64)
        for case in report.cases
        if case.candidate_float64 is not None and case.reference_float64 is not None
    ]
    if not pairs:
        return ""
    ours, theirs = (max(column) for column in zip(*pairs, strict=True))
    return f"max error against float64: {error_text(ours)}, PyTorch float32 {error_text(theirs)}"


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _fields(
    value: CaseResult | LayerError | ParityReport | TruthReport | PairResult | Scores,
) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(value))
    return {name: plain(getattr(value, name)) for name in names if name != "images"}
