"""Plot latency against image size and against coverage; needs matplotlib, which is optional."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.export.timing.candidates import CANDIDATES
from deblur_export.export.timing.cases import Case
from deblur_export.export.timing.tables import of_precision
from deblur_export.outputs import check_plots
from deblur_export.shown import shown

SUFFIXES = (".png", ".svg", ".pdf")
PANEL = (8.5, 4.5)  # inches
MARKERS = "osD^vPX"
STYLES = ("-", "--", ":")  # of the networks in order


def check_plot(path: Path, sizes: int, coverages: int) -> None:
    """Check that `draw` can write a plot.

    Raises:
        DeblurExportError: there is only one point, the suffix is not supported, or matplotlib is
            not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DeblurExportError(f"{path}: --plot writes {', '.join(SUFFIXES)}")
    if sizes < 2 and coverages < 2:
        raise DeblurExportError("--plot needs two sizes or coverages; repeat --size or --coverage")
    check_plots()


def draw(cases: Sequence[Case], path: Path) -> None:
    """Write one panel for each precision, and for size and coverage if they have several values.

    Raises:
        DeblurExportError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(cases)
    rows, columns = len(panels), max(map(len, panels))
    figure = Figure((PANEL[0] * columns, PANEL[1] * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for line, row in zip(axes, panels, strict=True):
        for axis, panel in zip(line, row, strict=True):
            panel(axis)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def _panels(cases: Sequence[Case]) -> list[list[Callable[[Any], None]]]:
    sizes = list(dict.fromkeys(case.size for case in cases))
    coverages = list(dict.fromkeys(case.coverage for case in cases))
    largest = max(sizes, key=lambda size: size[0] * size[1])
    panels = []
    for precision in dict.fromkeys(row.precision for row in cases[0].figures):
        row: list[Callable[[Any], None]] = []
        if len(sizes) > 1:
            chosen = [case for case in cases if case.coverage == coverages[0]]
            row.append(lambda axis, c=chosen, p=precision: _against_size(axis, c, p))  # type: ignore[misc]
        if len(coverages) > 1:
            chosen = [case for case in cases if case.size == largest]
            row.append(lambda axis, c=chosen, p=precision: _against_coverage(axis, c, p))  # type: ignore[misc]
        panels.append(row)
    return panels


def _against_size(axis: Any, cases: Sequence[Case], precision: str) -> None:
    from matplotlib.ticker import LogFormatter

    cases = sorted(cases, key=lambda case: case.size[0] * case.size[1])
    axis.set(xscale="log", yscale="log")
    _lines(axis, cases, precision, [case.size[0] * case.size[1] / 1e6 for case in cases])
    for scale in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        scale(LogFormatter(minor_thresholds=(2, 0.7)))
    forced = cases[0].coverage
    at = "" if forced is None else f", {100 * forced:g} % of the pixels forced"
    axis.set(
        title=f"Latency against image size, {precision}{at}",
        xlabel="image size, height x width",
    )
    ticks = {case.size[0] * case.size[1] / 1e6: f"{case.size[0]}x{case.size[1]}" for case in cases}
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.set_xticks([], minor=True)


def _against_coverage(axis: Any, cases: Sequence[Case], precision: str) -> None:
    cases = sorted(cases, key=lambda case: case.coverage or 0)
    _lines(axis, cases, precision, [100 * (case.coverage or 0) for case in cases])
    height, width = cases[0].size
    axis.set(
        title=f"Latency against forced coverage, {height}x{width}, {precision}",
        xlabel="pixels in the mask, %",
    )
    axis.set_ylim(bottom=0)


def _lines(axis: Any, cases: Sequence[Case], precision: str, x: Sequence[float]) -> None:
    """Draw the median of each row as a line, and its quartiles as a band."""
    from matplotlib import colormaps

    colours = dict(zip(CANDIDATES, colormaps["tab10"](range(len(CANDIDATES))), strict=False))
    rows = of_precision(cases[0], precision)
    networks = list(dict.fromkeys(row.subject for row in rows))
    seen: dict[tuple[Any, ...], int] = {}
    for row in rows:
        timed = [
            (at, case.figures[row])
            for at, case in zip(x, cases, strict=True)
            if case.figures[row].median is not None
        ]
        if not timed:
            continue
        kind = (row.subject, row.kind)
        seen[kind] = seen.get(kind, -1) + 1
        colour, marker = colours[row.kind.name], MARKERS[seen[kind] % len(MARKERS)]
        style = STYLES[networks.index(row.subject) % len(STYLES)]
        points = [at for at, _ in timed]
        axis.plot(
            points,
            [1e3 * (figure.median or 0) for _, figure in timed],
            color=colour,
            marker=marker,
            linestyle=style,
            label=shown(row.label),
        )
        low, high = ([1e3 * f.quantile(q) for _, f in timed] for q in (0.25, 0.75))
        axis.fill_between(points, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_ylabel("median latency, ms (band: quartiles)")
    axis.grid(True, which="both", alpha=0.3)
    legend = axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar begins no formula
