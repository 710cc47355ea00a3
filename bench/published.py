"""Parameters and multiply-adds of every variant beside the published ones.

    python bench/published.py [--json FILE]

Prints the table of the README (GitHub Markdown). Counting needs no weights and no measurement: it
runs the networks on torch's meta device.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from deblur_export import models
from deblur_export.export.catalogue import Comparison, comparisons


def counted(row: Comparison) -> str:
    """What is counted, and why it may not match."""
    figure = row.figure
    parts = []
    if row.unit == "GMACs":
        height, width = figure.size
        parts.append(f"{width}x{height}")
        if figure.with_bias:
            parts.append("biases, pooling and shuffles counted")
        if figure.convolutions:
            parts.append("convolutions only")
    if figure.without:
        parts.append("without " + ", ".join(f"`{part}`" for part in figure.without))
    if figure.note:
        parts.append(figure.note if figure.matched else f"**not matched**: {figure.note}")
    return "; ".join(parts)


def cells(row: Comparison) -> list[str]:
    title = models.get(row.name).title
    digits = 4 if row.ours < 100 else 5
    return [
        f"{title} {row.variant}",
        f"{row.ours:.{digits}g} {row.unit}",
        f"{row.published:g} {row.unit}",
        f"{100 * row.difference:+.2f} %",
        counted(row),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = list(comparisons())
    print(f"Counted with torch {torch.__version__}.\n")
    print("| | ours | published | difference | counted |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(cells(row))} |")
    if arguments.json:
        fields = ("name", "variant", "unit", "ours", "published", "difference")
        content = [{key: getattr(row, key) for key in fields} for row in rows]
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
