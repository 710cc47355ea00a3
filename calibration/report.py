"""Report a calibration: a table of the blocks, a one-line summary and a Pareto plot."""

from __future__ import annotations

from pathlib import Path

from rich.table import Column, Table

from deblur_export.atomic import atomic_path
from deblur_export.calibration.calibrate import Calibrated
from deblur_export.calibration.scoring import psnr
from deblur_export.outputs import check_plots
from deblur_export.shown import shown


def block_table(result: Calibrated) -> Table:
    """A table of blocks from the most to the least harmful, each measured alone in int8."""
    right = ("fraction of MACs", "PSNR to float32", "PSNR loss")
    numbers = (Column(name, justify="right", no_wrap=True) for name in right)
    table = Table(Column("block", overflow="fold"), *numbers, "computed in")
    blocks = sorted(result.blocks, key=lambda b: -result.alone[b.name].error)
    for block in blocks:
        score = result.alone[block.name]
        table.add_row(
            block.name,
            f"{block.macs / result.total:.1%}",
            f"{psnr(score.error):.1f} dB",
            f"{score.drop:+.4f} dB",
            "int8" if block.name in result.chosen.blocks else "float32",
        )
    return table


def summary(result: Calibrated) -> str:
    """One line: the fraction of the network in int8, and the loss of PSNR."""
    metadata, chosen = result.artifact.manifest.precision_map, result.chosen
    assert metadata is not None
    return (
        f"int8: {metadata.multiply_adds.conv:.1%} of the convolutions' multiply-adds, "
        f"{metadata.nodes['int8']} nodes, {len(chosen.blocks)} of {len(result.blocks)} blocks; "
        f"{chosen.score.drop:+.4f} dB, {psnr(chosen.score.error):.1f} dB to float32"
    )


def plot_pareto(path: Path, result: Calibrated, budget: float) -> None:
    """Plot the loss of PSNR against the fraction of multiply-adds in int8 of every measured graph.

    Raises:
        DeblurExportError: matplotlib is not installed, or the file cannot be written.
    """
    check_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained", dpi=110)
    axes = figure.subplots()
    fractions = [100 * point.fraction for point in result.points]
    drops = [point.score.drop for point in result.points]
    axes.plot(fractions, drops, "o-", color="#3567a8", markersize=4, label="measured")
    chosen = result.chosen
    axes.plot(
        100 * chosen.fraction,
        chosen.score.drop,
        "o",
        color="#c43b3b",
        markersize=10,
        label="written",
    )
    if budget < 2 * max(drops):  # a much larger budget would compress the axis
        axes.axhline(budget, color="#222222", linestyle="--", linewidth=1, label="budget")
    axes.set_xlabel("multiply-adds of convolutions and products in int8, %")
    axes.set_ylabel("loss of PSNR, dB")
    heading = f"{shown(result.artifact.title)}: int8 with a budget of {budget:g} dB"
    axes.set_title(heading, fontsize=11, parse_math=False)  # a dollar begins no formula
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))  # type: ignore[no-untyped-call]
