"""Compare the parameters and multiply-adds of every variant with the published figures.

    python bench/published.py [--json FILE]

Prints the tables of docs/networks.md (GitHub Markdown). Counting needs no weights and no
measurement: it runs the networks on torch's meta device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import readings
import torch
from torch import nn

from deblur_export import models
from deblur_export.models.catalogue import Comparison, comparisons
from deblur_export.models.complexity import count_macs, m2aenet_macs_at


def counted(row: Comparison) -> str:
    """How the figure is counted, and why it may not match."""
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
    digits = 4 if row.counted < 100 else 5
    return [
        f"{title} {row.variant}",
        f"{row.counted:.{digits}g} {row.unit}",
        f"{row.published:g} {row.unit}",
        f"{100 * row.difference:+.2f} %",
        counted(row),
    ]


# DHNet-B over the rank Q of its Volterra filters, GMACs at 256x256.
RANKS = {0: 106, 1: 107, 2: 109, 4: 111, 8: 119}


def print_ranks() -> None:
    """Print the cost of DHNet over the rank Q.

    The published row is not linear in Q, as the cost of any filter of rank Q is, so it cannot be
    matched.
    """
    spec = models.get("dhnet")
    print("\n| DHNet 64, rank Q | " + " | ".join(map(str, RANKS)) + " |")
    print("|---|" + len(RANKS) * "---|")
    print("| published, GMACs | " + " | ".join(map(str, RANKS.values())) + " |")
    here = []
    for rank in RANKS:
        with torch.device("meta"):
            net = spec.build(**{**spec.variants["64"], "rank": rank}).eval()
        here.append(f"{count_macs(net, 256, 256, ('prior',)).pure / 1e9:.1f}")
    print("| here, GMACs | " + " | ".join(here) + " |")


# M2AENet at 2152x1436: its published GMACs without the mask, without the motion, and with both.
WITHOUT_MASK, WITHOUT_MOTION, WITH_BOTH = 995, 528, 759
FRACTIONS = (1.0, 0.5, 0.1)  # of blurred pixels


def print_masks() -> None:
    """Print the cost of M2AENet with and without mask and motion, over the fraction of blurred
    pixels."""
    net = _build("m2aenet", "base")
    size = readings.M2AENET_SIZE
    unmasked = count_macs(net, *size, ("mask_predictor",)).pure
    motion = count_macs(net, *size).pure - count_macs(net, *size, MOTION).pure
    masked = [m2aenet_macs_at(net, *size, fraction) for fraction in FRACTIONS]
    rows = (
        ("with mask and motion", WITH_BOTH, masked),
        ("without motion", WITHOUT_MOTION, [macs - motion for macs in masked]),
        ("without mask", WITHOUT_MASK, [unmasked]),
    )
    shares = " | ".join(f"here, {fraction:.0%} blurred" for fraction in FRACTIONS)
    print(f"\n| M2AENet base, GMACs at {size[1]}x{size[0]} | published | {shares} |")
    print("|---|---|" + len(FRACTIONS) * "---|")
    for name, published, macs in rows:
        counted = [f"{value / 1e9:.1f}" for value in macs]
        counted += (len(FRACTIONS) - len(counted)) * [""]
        print(f"| {name} | {published} | {' | '.join(counted)} |")


MOTION = ("deform", "motion_analyzer")
# Networks whose published count fits only without a part, and which.
PARTLY_COUNTED = {
    ("algnet", "32"): "Mamba",
    ("aibnet", "s"): "the encoder and the products of attention",
    ("dhnet", "64"): "the prior",
}


def print_whole(rows: Sequence[Comparison]) -> None:
    """Print the cost of the whole network where the published one fits without a part of it."""
    print("\n| GMACs at 256x256 | published | fits without | the whole network, here |")
    print("|---|---|---|---|")
    for row in rows:
        part = PARTLY_COUNTED.get((row.name, row.variant))
        if part is not None and row.unit == "GMACs":
            whole = count_macs(_build(row.name, row.variant), 256, 256).pure / 1e9
            title = models.get(row.name).title
            print(f"| {title} {row.variant} | {row.published:g} | {part} | {whole:.1f} |")


def _build(name: str, variant: str) -> nn.Module:
    spec = models.get(name)
    with torch.device("meta"):
        return spec.build(**spec.variants[variant]).eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = list(comparisons())
    print(f"Counted with torch {torch.__version__}.\n")
    print("| | here | published | difference | counted |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(cells(row))} |")
    print_ranks()
    print_masks()
    print_whole(rows)
    print()
    print("\n".join(readings.table()))
    if arguments.json:
        fields = ("name", "variant", "unit", "counted", "published", "difference")
        content = [{key: getattr(row, key) for key in fields} for row in rows]
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
