"""Which blocks of a network bear eight bits, and the fastest graph inside a budget of PSNR."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

# "encoders.0.1" of "encoders.0.1.conv2/Conv", "encoder.downs.2" of "encoder.downs.2/Conv":
# up to the first run of numbers; the first name where there is none.
BLOCK = re.compile(r"[^/]*?\.\d+(?:\.\d+)*(?=[./]|$)|[^./]+")


@dataclass(frozen=True)
class Block:
    """Sites that are quantized together: names of their nodes, and their multiply-adds."""

    name: str
    nodes: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class Score:
    """What quantization does to the images. `drop`: dB of PSNR lost against the truth. `error`:
    mean squared error against the float32 graph."""

    drop: float
    error: float


@dataclass(frozen=True)
class Point:
    """A graph that was tried: the blocks in eight bits, their share of the convolutions'
    multiply-adds, and its score."""

    blocks: tuple[str, ...]
    share: float
    score: Score


Scorer = Callable[[Collection[str]], Score]  # names of quantized nodes -> score


def blocks_of(macs: Mapping[str, int]) -> list[Block]:
    """Nodes grouped by their module, in order; `macs` maps nodes to multiply-adds."""
    grouped: dict[str, list[str]] = {}
    for node in macs:
        found = BLOCK.match(node)
        grouped.setdefault(found.group() if found else node, []).append(node)
    return [Block(k, tuple(v), sum(macs[node] for node in v)) for k, v in grouped.items()]


def sensitivity(
    blocks: Sequence[Block], score: Scorer, progress: Callable[[str], None]
) -> dict[str, Score]:
    """The score with one block in eight bits and everything else in float32."""
    found = {}
    for block in blocks:
        progress(f"sensitivity of {block.name}")
        found[block.name] = score(block.nodes)
    return found


def ladder(
    blocks: Sequence[Block],
    alone: Mapping[str, Score],
    score: Scorer,
    total: int,
    progress: Callable[[str], None],
) -> Iterator[Point]:
    """From all blocks in eight bits to a single one; each step gives the most harmful back.

    Harm is the squared error that a block adds alone, per multiply-add that it would save: errors
    of blocks add up nearly, so that this is the greedy answer to the knapsack that the budget is.

    Args:
        blocks: all that can be quantized.
        alone: `sensitivity`.
        score: of any set of nodes.
        total: multiply-adds of all convolutions, whoever computes them.
        progress: gets a line a step.
    """
    left = sorted(blocks, key=lambda block: alone[block.name].error / max(block.macs, 1))
    while left:
        progress(f"mixed precision: {len(left)} of {len(blocks)} blocks in int8")
        nodes = [node for block in left for node in block.nodes]
        share = sum(block.macs for block in left) / max(total, 1)
        names = {block.name for block in left}
        ordered = tuple(block.name for block in blocks if block.name in names)
        yield Point(ordered, share, score(nodes))
        left.pop()
