"""Cases of PrunedConv."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deblur_export.plugins.ops.pruned_conv import pruned_conv, pruned_conv_reference
from tests.plugins.harness import Case, Inputs, blob_mask, rand, rounded


def pruned(n: int, c: int, h: int, w: int, coverage: float) -> Callable[..., Inputs]:
    def make(dtype: torch.dtype) -> Inputs:
        tensors = {
            "x": rand(n, c, h, w),
            "mask": blob_mask(n, h, w, coverage),
            "weight1": rand(2 * c, c, 1, 1),
            "bias1": rand(2 * c),
            "weight2": rand(2 * c, 1, 3, 3),
            "bias2": rand(2 * c, seed=3),
        }
        return rounded(tensors, dtype) | {"group": 2 * c}

    return make


def dense(*, group: int, **inputs: Tensor) -> Tensor:
    return pruned_conv_reference(**inputs)


CASES = [
    *(
        Case(
            "PrunedConv",
            f"coverage-{int(100 * fraction)}",
            pruned(2, 5, 9, 13, fraction),
            pruned_conv,
            dense,
        )
        for fraction in (0.0, 0.02, 0.1, 0.4, 0.9, 1.0)
    ),
    Case("PrunedConv", "one-pixel", pruned(1, 3, 1, 1, 1.0), pruned_conv, dense),
]
