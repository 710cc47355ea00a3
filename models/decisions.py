"""Run a network with the discrete choices of another implementation, and check these choices.

A threshold or a ranking can turn float32 rounding into a different mask or pixel set. Everything
after it is compared with the same choices, so that a flip can neither fail a correct file nor hide
a wrong one. The flips themselves must be few, and their scores close to the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deblur_export.models.blocks.decision import Decision, Inputs
from deblur_export.precision import FP32

Choices = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Allowance:
    """How many entries of a decision may be flipped.

    Attributes:
        fraction: allowed fraction of flipped entries.
        distance: allowed distance of their scores from the threshold; at least the decision's own
            tolerance, which is for float32.
    """

    fraction: float = FP32.tolerances.flips
    distance: float = 0.0


FLOAT32 = Allowance()


@dataclass(frozen=True)
class ChoiceCheck:
    """The result of checking the choice of one decision.

    Attributes:
        flips: number of entries that differ from the network's own choice.
        total: number of entries.
        reason: why the flips are not due to rounding, or "" if they can be.
    """

    flips: int
    total: int
    reason: str


def decisions(net: nn.Module) -> dict[str, Decision]:
    """The decision modules of a network by their dotted path."""
    return {name: module for name, module in net.named_modules() if isinstance(module, Decision)}


@contextmanager
def with_choices(
    net: nn.Module, choices: Choices, allowance: Allowance = FLOAT32
) -> Iterator[list[ChoiceCheck]]:
    """A context in which decisions of the network return given choices.

    Args:
        net: the network, in eval mode.
        choices: outputs by the dotted path of the decision module.
        allowance: how many flips are acceptable.

    Yields:
        A list to which every decision, as it runs, appends the check of its choice against the
        network's own scores, which follow from the choices before it.
    """
    checks: list[ChoiceCheck] = []

    def hook(name: str) -> Any:
        choice = torch.from_numpy(np.ascontiguousarray(choices[name]))

        def decide(module: Decision, inputs: Inputs, own: Tensor) -> Tensor:
            if choice.shape != own.shape or not module.is_choice(own, choice):
                reason = f"{name}: {_shape(choice)} is not a possible choice"
                checks.append(ChoiceCheck(0, own.numel(), reason))
                return own
            given = choice.to(own.dtype)
            checks.append(_check(name, module, inputs, own, given, allowance))
            return given

        return decide

    with ExitStack() as stack:
        for name in choices:
            stack.enter_context(net.get_submodule(name).register_forward_hook(hook(name)))
        yield checks


def _check(
    name: str,
    module: Decision,
    inputs: Inputs,
    own: Tensor,
    choice: Tensor,
    allowance: Allowance,
) -> ChoiceCheck:
    flipped = module.differences(inputs, own, choice)
    flips, total = int(flipped.sum()), flipped.numel()
    reason = ""
    if flips:
        worst = float(module.distance(inputs, own, choice)[flipped].max())
        if not worst <= max(module.tolerance, allowance.distance):
            reason = (
                f"{name}: a choice differs although its score is {worst:.1e} from the threshold"
            )
        elif flips > max(module.min_flips, allowance.fraction * total):
            reason = f"{name}: {flips} of {total} choices differ"
    return ChoiceCheck(flips, total, reason)


def _shape(choice: Tensor) -> str:
    return f"{choice.dtype} {list(choice.shape)}".removeprefix("torch.")
