"""Run a network under the discrete choices of another implementation, and judge these.

A threshold or a ranking turns float32 rounding into a different mask or pixel set. What follows
is compared under the same choices, so that a flip can neither fail a correct file nor hide a
wrong one; the flips themselves must be few and borderline.
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

FLIP_SHARE = 1e-3  # of all places that one decision may choose differently, in float32
Choices = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Allowance:
    """Which share of the places may differ, and how far from the border (at least the decision's
    own tolerance, which is for float32)."""

    share: float = FLIP_SHARE
    distance: float = 0.0


FLOAT32 = Allowance()


@dataclass(frozen=True)
class Judgement:
    """One decision: how many of its places differ; why that is no rounding, else empty."""

    flips: int
    places: int
    reason: str


def decisions(net: nn.Module) -> dict[str, Decision]:
    """The decision modules of a network by their path."""
    return {name: module for name, module in net.named_modules() if isinstance(module, Decision)}


@contextmanager
def decided(
    net: nn.Module, choices: Choices, allowance: Allowance = FLOAT32
) -> Iterator[list[Judgement]]:
    """Inside, the named decisions give `choices`; the list fills up with one judgement a decision.

    Each is judged by the network's own scores under the choices before it.
    """
    judged: list[Judgement] = []

    def hook(name: str) -> Any:
        choice = torch.from_numpy(np.ascontiguousarray(choices[name]))

        def decide(module: Decision, inputs: Inputs, own: Tensor) -> Tensor:
            if choice.shape != own.shape or not module.is_choice(own, choice):
                judged.append(Judgement(0, own.numel(), f"{name}: {_shape(choice)} is no choice"))
                return own
            theirs = choice.to(own.dtype)
            judged.append(_judge(name, module, inputs, own, theirs, allowance))
            return theirs

        return decide

    with ExitStack() as stack:
        for name in choices:
            stack.enter_context(net.get_submodule(name).register_forward_hook(hook(name)))
        yield judged


def _judge(
    name: str,
    module: Decision,
    inputs: Inputs,
    own: Tensor,
    choice: Tensor,
    allowance: Allowance,
) -> Judgement:
    flipped = module.differences(inputs, own, choice)
    flips, places = int(flipped.sum()), flipped.numel()
    reason = ""
    if flips:
        worst = float(module.distance(inputs, own, choice)[flipped].max())
        if not worst <= max(module.tolerance, allowance.distance):
            reason = f"{name}: a choice differs although its score is {worst:.1e} from the border"
        elif flips > max(module.least, allowance.share * places):
            reason = f"{name}: {flips} of {places} choices differ"
    return Judgement(flips, places, reason)


def _shape(choice: Tensor) -> str:
    return f"{choice.dtype} {list(choice.shape)}".removeprefix("torch.")
