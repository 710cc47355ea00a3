"""A calibration for people: a table of the blocks, a line of the result, and a Pareto plot."""

from __future__ import annotations

from pathlib import Path

from rich.table import Column, Table

from deblur_export.atomic import atomic_path
from deblur_export.calibration.calibrate import Calibrated
from deblur_export.calibration.scoring import psnr
from deblur_export.errors import DeblurExportError


def block_table(result: Calibrated) -> Table:
    """Blocks from the most harmful to the least, each alone in int8."""
    right = ("share of MACs", "PSNR to float32", "drop")
    table = Table("block", *(Column(name, justify="right") for name in right), "computed in")
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
    """One line: what is in int8 and what it costs."""
    facts, chosen = result.artifact.manifest.precision_map, result.chosen
    assert facts is not None
    return (
        f"int8: {facts.multiply_adds.conv:.1%} of the convolutions' multiply-adds, "
        f"{facts.nodes['int8']} nodes, {len(chosen.blocks)} of {len(result.blocks)} blocks; "
        f"{chosen.score.drop:+.4f} dB, {psnr(chosen.score.error):.1f} dB to float32"
    )


def plot_pareto(path: Path, result: Calibrated, budget: float) -> None:
    """Drop over the share of multiply-adds in int8, for every graph that was tried.

    Raises:
        DeblurExportError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DeblurExportError(
            "--plot needs matplotlib; pip install 'deblur-export[plots]'"
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained", dpi=110)
    axes = figure.subplots()
    shares = [100 * point.share for point in result.points]
    drops = [point.score.drop for point in result.points]
    axes.plot(shares, drops, "o-", color="#3567a8", markersize=4, label="tried, block by block")
    chosen = result.chosen
    axes.plot(
        100 * chosen.share, chosen.score.drop, "o", color="#c43b3b", markersize=10, label="written"
    )
    if budget < 2 * max(drops):  # else it would flatten everything it allows
        axes.axhline(budget, color="#222222", linestyle="--", linewidth=1, label="budget")
    axes.set_xlabel("multiply-adds of the convolutions in int8, %")
    axes.set_ylabel("PSNR lost, dB")
    axes.set_title(f"{result.artifact.title}: int8 under a budget of {budget:g} dB", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))  # type: ignore[no-untyped-call]
