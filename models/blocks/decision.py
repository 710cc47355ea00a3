"""Modules whose output is a discrete choice, which float32 rounding can change.

Two correct implementations may choose differently where a score is within rounding of a threshold.
They are then compared with the same choice, and the scores of all entries that differ must be close
to the threshold.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

from torch import Tensor, nn

Inputs: TypeAlias = tuple[Any, ...]


class Decision(nn.Module):
    """Base class of modules that make a choice from scores. Subclasses define how two choices are
    compared.

    `inputs` are the arguments of `forward`: the scores, then what `distance` needs in addition.

    Attributes:
        tolerance: largest `distance` from the threshold of an entry that may differ in float32.
        min_flips: number of entries that differ if a single score crosses the threshold.
    """

    tolerance: ClassVar[float]
    min_flips: ClassVar[int]

    def is_choice(self, own: Tensor, other: Tensor) -> bool:
        """Whether `other` is a possible output where `own` is the actual one."""
        raise NotImplementedError

    def differences(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """Which entries of two choices differ, as a bool tensor."""
        raise NotImplementedError

    def distance(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """The distance, 0 or more, of each entry's score from the threshold between the choices."""
        raise NotImplementedError
