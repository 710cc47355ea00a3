"""Modules whose output is a discrete choice, which float32 rounding can turn.

Two correct implementations may choose differently where a score lies within rounding of the
border. They are then compared under one choice, and each difference must be borderline.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

from torch import Tensor, nn

Inputs: TypeAlias = tuple[Any, ...]


class Decision(nn.Module):
    """Scores to a choice; subclasses say how to compare two choices.

    `inputs` are what `forward` is called with: the scores, then what `distance` needs besides.

    `tolerance`: how far from the border a differing place may lie, as `distance` gives it.
    `least`: how many places differ when one score crosses the border.
    """

    tolerance: ClassVar[float]
    least: ClassVar[int]

    def is_choice(self, own: Tensor, other: Tensor) -> bool:
        """Whether `other` could be an output at all where `own` is one."""
        raise NotImplementedError

    def differences(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """Where two choices differ, bool, one entry a place."""
        raise NotImplementedError

    def distance(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """How far each place lies from the border that tells the two choices apart, 0 or more."""
        raise NotImplementedError
