"""The first check of an op's arguments: how many dimensions each has."""

from __future__ import annotations

from torch import Tensor


def check_ranks(op: str, ranks: dict[str, tuple[Tensor, int]]) -> None:
    """Raise ValueError if a tensor has another number of dimensions than is said."""
    for name, (tensor, rank) in ranks.items():
        if tensor.dim() != rank:
            raise ValueError(f"{op}: {name} has {tensor.dim()} dimensions, not {rank}")
