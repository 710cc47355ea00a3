"""Cases of TopPixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deblur_export.plugins.ops.top_pixels import top_pixels
from tests.plugins.harness import Case, Inputs, rand, rounded


def scored(
    n: int, h: int, w: int, ratio: int, change: Callable[[Tensor], Tensor] = lambda x: x
) -> Callable[..., Inputs]:
    return lambda dtype: rounded({"scores": change(rand(n, 1, h, w))}, dtype) | {"ratio": ratio}


def spread(x: Tensor) -> Tensor:
    """Scores of both signs over the whole range of float32."""
    return x.sign() * 10 ** (24 * x).clamp(-37, 37)


def crowded(x: Tensor) -> Tensor:
    """Neighbouring float32 numbers, each of them several times."""
    return 1 + (4 * x).round().clamp(-5, 5) * 2.0**-22


def any_float(x: Tensor) -> Tensor:
    """Every kind of float32 number but nan, from random bits."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, x.shape, generator=generator, dtype=torch.int64)
    return bits.to(torch.int32).view(torch.float32).nan_to_num(0.0).to(x)


def sorted_by_hand(scores: Tensor, ratio: int) -> Tensor:
    """Python's stable sort: the higher score first, the lower index first among equal ones."""
    chosen = []
    for image in scores.flatten(1).tolist():
        order = sorted(range(len(image)), key=lambda pixel: -image[pixel])
        chosen.append(sorted(order[: len(image) // ratio**2]))
    return torch.tensor(chosen, dtype=torch.int64).view(len(scores), -1)


CASES = [
    Case("TopPixels", name, make, top_pixels, sorted_by_hand, rank=2)
    for name, make in (
        ("quarter", scored(2, 6, 10, 2)),
        ("sixteenth", scored(1, 8, 12, 4)),
        ("all", scored(1, 3, 5, 1)),
        ("ties", scored(2, 8, 8, 2, torch.round)),
        ("negative", scored(1, 8, 8, 2, lambda x: -1 - x.abs())),
        ("equal", scored(2, 4, 6, 2, torch.zeros_like)),
        ("signed-zeros", scored(1, 4, 8, 2, lambda x: 0 * x)),
        ("any-float", scored(1, 40, 40, 2, any_float)),
        ("spread", scored(2, 12, 12, 2, spread)),
        ("infinite", scored(1, 8, 8, 2, lambda x: x / (x.abs() > 0.7))),
        ("crowded", scored(2, 24, 24, 4, crowded)),
        ("one-pixel", scored(2, 1, 1, 1)),
        ("large", scored(1, 96, 80, 2)),
    )
]
