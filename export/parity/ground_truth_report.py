"""The comparison with ground truth as a table in the terminal and a section of the HTML page."""

from __future__ import annotations

from dataclasses import astuple
from html import escape

from rich.table import Table
from rich.text import Text

from deblur_export.export.parity.ground_truth import GroundTruthReport, PairResult, Scores
from deblur_export.shown import shown

COLUMNS = ("PSNR", "SSIM", "PSNR_w", "SSIM_w")
FORMATS = (".3f", ".5f", ".3f", ".5f")
PYTORCH = "PyTorch"
SHOWN = 10  # number of pairs in the terminal, those with the largest loss


def ground_truth_table(report: GroundTruthReport, name: str = PYTORCH) -> Table:
    """A table of the means of reference and candidate, and of the pairs with the largest loss."""
    title = f"{shown(report.source)}: {len(report.pairs)} pairs against their ground truth"
    table = Table(title=title, title_justify="left")
    table.add_column("mean", overflow="fold")
    for name in (*COLUMNS, "loss, dB"):
        table.add_column(name, justify="right", no_wrap=True)
    reference, candidate = report.means()
    table.add_row(Text(name), *cells(reference), "")
    table.add_row("file", *cells(candidate), drop_text(report.drop), end_section=True)
    worst = report.worst()
    for pair in worst[:SHOWN]:
        table.add_row(shown(pair.name), *cells(pair.candidate), drop_text(pair.drop))
    if len(worst) > SHOWN:
        table.add_row(f"{len(worst) - SHOWN} more lose less", *[""] * (1 + len(COLUMNS)))
    return table


def ground_truth_section(report: GroundTruthReport, name: str = PYTORCH) -> str:
    """A section of HTML with the means and all pairs in their order."""
    reference, candidate = report.means()
    head = "".join(f"<th>{name}</th>" for name in ("", *COLUMNS, "loss, dB"))
    means = _row(name, cells(reference), "")
    means += _row("file", cells(candidate), drop_text(report.drop))
    columns = "".join(f"<th>{column}<br>{escape(name)}</th><th>file</th>" for column in COLUMNS)
    pairs = "".join(map(_pair_row, report.pairs))
    outcome = report.reason or f"{report.summary}; {report.max_drop:g} dB are allowed"
    return f"""<section><h2>Comparison with the ground truth</h2>
<p>{escape(shown(outcome, 1000))}.</p>
<div class="scroll"><table><tr>{head}</tr>{means}</table></div>
<p class="dim">Means over the pairs of {escape(shown(report.source))}; _w weights pixels by the
ground-truth mask.</p><details><summary>All {len(report.pairs)} pairs</summary><div class="scroll">
<table><tr><th>pair</th>{columns}<th>loss, dB</th></tr>{pairs}</table></div></details></section>"""


def cells(scores: Scores) -> list[str]:
    """The scores as text in the order of COLUMNS; a dash for None."""
    values = zip(astuple(scores), FORMATS, strict=True)
    return ["-" if value is None else format(value, form) for value, form in values]


def drop_text(drop: float) -> str:
    return f"{drop:+.4f}"


def _pair_row(pair: PairResult) -> str:
    both = zip(cells(pair.reference), cells(pair.candidate), strict=True)
    return _row(
        pair.name, [cell for pair_cells in both for cell in pair_cells], drop_text(pair.drop)
    )


def _row(name: str, columns: list[str], drop: str) -> str:
    inside = "".join(f"<td>{cell}</td>" for cell in (*columns, drop))
    return f'<tr><td class="wrap">{escape(shown(name))}</td>{inside}</tr>'
