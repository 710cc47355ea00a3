"""The results of a measurement as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deblur_export.export.timing.candidates import BASELINE, Row
from deblur_export.export.timing.cases import Case
from deblur_export.export.timing.rounds import Figures

TIMES = ("median", "min", "quartiles", "ratio", "first run")
COLUMNS = (*TIMES, "load", "file", "peak", "max diff")
ANY_WIDTH = 1000
LEGEND = (
    "Times in ms, load in s, file and peak memory in MB; ratio of medians, below 1 is faster; "
    "max diff to PyTorch in float32, or to the original of an adopted file, on the same image."
)


def of_precision(case: Case, precision: str) -> dict[Row, Figures]:
    """The rows of a case in one precision, which one table compares."""
    return {row: f for row, f in case.figures.items() if row.precision == precision}


def baseline(figures: Mapping[Row, Figures]) -> Row | None:
    """The row to which ratios are computed: the first plain export on ONNX Runtime, otherwise the
    first row with a time; None if no row has one."""
    timed = [row for row, figure in figures.items() if figure.median is not None]
    return next((row for row in timed if row.kind.name == BASELINE), timed[0] if timed else None)


def title(case: Case, precision: str) -> str:
    """The title of a table, like `256x256, 10 % forced (15 % dilated), fp32`; height x width."""
    height, width = case.size
    parts = [f"{height}x{width}"]
    if case.coverage is not None:
        assert case.dilated is not None
        parts.append(f"{100 * case.coverage:g} % forced ({100 * case.dilated:.1f} % dilated)")
    return ", ".join([*parts, precision])


def case_tables(case: Case, precision: str, console: Console) -> list[Table]:
    """A table with one row for each candidate; two with half of the columns where the console is
    too narrow for that."""
    whole = case_table(case, precision)
    needed = console.measure(whole, options=console.options.update(width=ANY_WIDTH)).maximum
    if needed <= console.width:
        return [whole]
    times, others = slice(0, len(TIMES)), slice(len(TIMES), None)
    return [case_table(case, precision, times), case_table(case, precision, others)]


def case_table(case: Case, precision: str, columns: slice = slice(None)) -> Table:
    """A table with one row for each candidate, with some of COLUMNS."""
    figures = of_precision(case, precision)
    base = baseline(figures)
    of = "" if base is None else f"; ratio to {base.label}"
    table = Table(title=title(case, precision) + of, title_justify="left", box=box.SIMPLE)
    table.add_column("candidate", overflow="fold")
    for column in COLUMNS[columns]:
        table.add_column(column, justify="right", no_wrap=True)
    for row, figure in figures.items():
        cells = _cells(figure, figures[base] if base else None)
        table.add_row(Text(row.label), *cells[columns])
    return table


def reasons(figures: Mapping[Row, Figures]) -> list[str]:
    """One line for each row without a time."""
    return [f"{row.label}: {figure.reason}" for row, figure in figures.items() if figure.reason]


def titles(cases: Sequence[Case]) -> list[str]:
    """One line for each candidate: what exactly ran, and the notes of its backend."""
    found: dict[str, None] = {}
    for case in cases:
        for row, figure in case.figures.items():
            if figure.title:
                notes = "".join(f" ({note})" for note in figure.notes)
                found[f"{row.label}: {figure.title}{notes}"] = None
    return list(found)


def memory_kinds(cases: Iterable[Case]) -> list[str]:
    """Lines that say how the workers measured the peak memory."""
    return sorted({f.memory for case in cases for f in case.figures.values() if f.memory})


def profile_table(case: Case, row: Row) -> Table:
    """A table of the operators that need most of the time of a file."""
    figure = case.figures[row]
    head = f"{row.label}, {title(case, row.precision)}: where the time goes"
    table = Table(title=head, title_justify="left", box=box.SIMPLE)
    table.add_column("operator", no_wrap=True)
    for column in ("ms per run", "of the median"):
        table.add_column(column, justify="right")
    assert figure.median is not None
    for name, seconds in figure.profile.items():
        table.add_row(Text(name), ms(seconds), f"{100 * seconds / figure.median:.0f} %")
    return table


def as_json(cases: Sequence[Case], machine: Mapping[str, str], settings: Mapping[str, Any]) -> Any:
    """All results in seconds and bytes, with one entry for each case and precision."""
    entries = []
    for case in cases:
        for precision in dict.fromkeys(row.precision for row in case.figures):
            figures = of_precision(case, precision)
            base = baseline(figures)
            entries.append(
                {
                    "size": list(case.size),
                    "coverage": case.coverage,
                    "dilated_coverage": case.dilated,
                    "precision": precision,
                    "ratio_to": base.label if base else None,
                    "median_seconds": {
                        row.label: f.median for row, f in figures.items() if f.median is not None
                    },
                    "candidates": {row.label: _fields(row, f) for row, f in figures.items()},
                }
            )
    return {"machine": dict(machine), "settings": dict(settings), "cases": entries}


def _fields(row: Row, figure: Figures) -> dict[str, Any]:
    spread = None
    if figure.runs:
        spread = {
            "min": min(figure.runs),
            "lower_quartile": figure.quantile(0.25),
            "upper_quartile": figure.quantile(0.75),
            "max": max(figure.runs),
        }
    difference = figure.max_difference
    finite = difference is None or difference != float("inf")
    return asdict(figure) | {
        "network": row.subject.title,
        "candidate": row.kind.name,
        "median_seconds": figure.median,
        "spread_seconds": spread,
        "max_difference": difference if finite else "Infinity",
    }


def _cells(figure: Figures, base: Figures | None) -> list[str]:
    median = figure.median
    if median is None:
        return ["-"] * len(COLUMNS)
    assert base is not None and base.median is not None
    assert figure.first_run is not None and figure.load_seconds is not None
    difference = figure.max_difference
    return [
        ms(median),
        ms(min(figure.runs)),
        f"{ms(figure.quantile(0.25))}..{ms(figure.quantile(0.75))}",
        f"{median / base.median:.2f}",
        ms(figure.first_run),
        f"{figure.load_seconds:.1f}",
        "-" if figure.file_bytes is None else f"{figure.file_bytes / 1e6:.1f}",
        "-" if figure.peak_bytes is None else f"{figure.peak_bytes / 1e6:.0f}",
        "not checked" if difference is None else f"{difference:.0e}",
    ]


def ms(seconds: float) -> str:
    """Seconds as milliseconds with three digits."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
