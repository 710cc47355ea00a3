"""Mixed-precision search: which blocks of a network can be int8 within a budget of PSNR."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

# "encoders.0.1" of "encoders.0.1.conv2/Conv", "encoder.downs.2" of "encoder.downs.2/Conv": up to
# the first run of numbers, or the first name if there are no numbers.
BLOCK = re.compile(r"[^/]*?\.\d+(?:\.\d+)*(?=[./]|$)|[^./]+")


@dataclass(frozen=True)
class Block:
    """Nodes that are quantized together.

    Attributes:
        name: of the module that they belong to.
        nodes: their names.
        macs: their multiply-adds.
    """

    name: str
    nodes: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class Score:
    """The effect of quantization on images.

    Attributes:
        drop: loss of PSNR in dB, against the ground truth.
        error: mean squared error against the float32 graph.
    """

    drop: float
    error: float


@dataclass(frozen=True)
class Point:
    """A graph that was measured.

    Attributes:
        blocks: names of the blocks in int8.
        fraction: their fraction, 0..1, of the multiply-adds of all convolutions and products.
        score: of the graph.
    """

    blocks: tuple[str, ...]
    fraction: float
    score: Score


Scorer = Callable[[Collection[str]], Score]  # from names of quantized nodes to the score


def blocks_of(macs: Mapping[str, int]) -> list[Block]:
    """Group nodes by their module, in order; `macs` are their multiply-adds by name."""
    grouped: dict[str, list[str]] = {}
    for node in macs:
        found = BLOCK.match(node)
        grouped.setdefault(found.group() if found else node, []).append(node)
    return [Block(k, tuple(v), sum(macs[node] for node in v)) for k, v in grouped.items()]


def sensitivity(
    blocks: Sequence[Block], score: Scorer, progress: Callable[[str], None]
) -> dict[str, Score]:
    """Measure each block alone in int8, with everything else in float32; scores by block name."""
    found = {}
    for block in blocks:
        progress(f"sensitivity of {block.name}")
        found[block.name] = score(block.nodes)
    return found


def mixed_precision_search(
    blocks: Sequence[Block],
    alone: Mapping[str, Score],
    score: Scorer,
    total: int,
    progress: Callable[[str], None],
) -> Iterator[Point]:
    """Measure graphs from all blocks in int8 to a single one; each step returns the most harmful
    block to float32.

    The harm of a block is the squared error that it adds alone per multiply-add that it saves.
    Errors of blocks are nearly additive, so this is the greedy solution of the knapsack problem
    that the budget defines.

    Args:
        blocks: all quantizable blocks.
        alone: the result of `sensitivity`.
        score: measures a set of nodes in int8.
        total: multiply-adds of all convolutions of the graph.
        progress: called with a line of text for each step.

    Yields:
        The graphs in the order in which they are measured.
    """
    remaining = sorted(blocks, key=lambda block: alone[block.name].error / max(block.macs, 1))
    while remaining:
        progress(f"mixed precision: {len(remaining)} of {len(blocks)} blocks in int8")
        nodes = [node for block in remaining for node in block.nodes]
        fraction = sum(block.macs for block in remaining) / max(total, 1)
        names = {block.name for block in remaining}
        ordered = tuple(block.name for block in blocks if block.name in names)
        yield Point(ordered, fraction, score(nodes))
        remaining.pop()
