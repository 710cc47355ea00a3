"""Report ranges of tensors: a table of the most critical ones, and a plot over the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Column, Table

from deblur_export.atomic import atomic_path
from deblur_export.export.precision.ranges import (
    HEADROOM,
    LARGEST,
    NORMAL,
    SUBNORMAL,
    TensorRange,
)
from deblur_export.export.runtimes.emulated_session import MOVES
from deblur_export.outputs import check_plots
from deblur_export.shown import shown

WORST = 12  # number of rows
ROW, TALLEST = 0.12, 14  # inches per tensor, and at most of all together
LABELS = 100  # largest number of labels


def ranges_table(ranges: Sequence[TensorRange], worst: int = WORST) -> Table:
    """A table of the tensors that are closest to the largest float16."""
    names = ("min", "max", "headroom", "1 % below", "subnormal", "lost")
    right = [Column(name, justify="right", no_wrap=True) for name in names]
    folded = [Column(name, overflow="fold") for name in ("tensor", "op")]
    # Light enough for 80 characters: a number is never cut.
    table = Table(*folded, *right, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for entry in sorted(ranges, key=lambda entry: entry.headroom)[:worst]:
        table.add_row(
            entry.name,
            entry.op,
            f"{entry.low:.4g}",
            f"{entry.high:.4g}",
            f"2^{entry.headroom:.1f}",
            "-" if entry.small is None else f"2^{entry.small}",
            f"{entry.below(NORMAL):.2%}",
            f"{entry.below(SUBNORMAL):.2%}",
        )
    return table


def plot_ranges(path: Path, ranges: Sequence[TensorRange], title: str) -> None:
    """Plot a bar for each tensor, from top to bottom in the order of the network.

    A bar reaches from the power of two below which 1 % of the values are to the largest value, on a
    scale of log2 |x|. The limits of float16 are drawn. Outputs of nodes that only move data are
    left out.

    Raises:
        DeblurExportError: matplotlib is not installed, or the file cannot be written.
    """
    check_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [e for e in ranges if e.small is not None and e.finite and e.op not in MOVES]
    figure = Figure(figsize=(10, 2 + min(ROW * len(drawn), TALLEST)), layout="constrained", dpi=110)
    axes = figure.subplots()
    for row, entry in enumerate(drawn):
        assert entry.small is not None
        right = math.log2(entry.largest)
        colour = "#c43b3b" if entry.headroom < HEADROOM else "#3567a8"
        axes.barh(row, right - min(entry.small, right), left=min(entry.small, right), color=colour)
    limits = {
        SUBNORMAL: "smallest subnormal",
        NORMAL: "smallest normal",
        math.log2(LARGEST): "largest, 65504",
    }
    for power, name in limits.items():
        axes.axvline(power, color="#222222", linestyle="--", linewidth=1)
        axes.text(power, -1.5, name, fontsize=8, ha="center", backgroundcolor="white")
    step = max(1, -(-len(drawn) // LABELS))
    names = [shown(entry.name) for entry in drawn[::step]]
    # Names from a file: a dollar begins no formula.
    axes.set_yticks(range(0, len(drawn), step), names, fontsize=7, parse_math=False)
    axes.set_ylim(len(drawn), -0.02 * len(drawn) - 2)
    axes.set_xlim(min([SUBNORMAL, *(e.small for e in drawn if e.small is not None)]) - 3, 21)
    axes.set_xlabel("log2 |x|: from the 1 % quantile to the largest value")
    heading = f"{shown(title)}: ranges of the tensors and the limits of float16"
    axes.set_title(heading, fontsize=11, parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))  # type: ignore[no-untyped-call]
