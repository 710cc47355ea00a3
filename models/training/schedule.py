"""How far a run is, its learning rate, and the running average of its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """A run of `steps` and/or `minutes` in `phases` equal parts, each with a warm-up and a cosine.

    Attributes:
        lr, lowest: learning rate after the warm-up and at the end of a phase.
        warmup: share of a phase in which the rate rises linearly.
    """

    steps: int | None
    minutes: float | None
    phases: int = 1
    lr: float = 1e-3
    lowest: float = 1e-6
    warmup: float = 0.03

    def progress(self, step: int, seconds: float) -> float:
        """0 at the start, 1 or more when the run is over: whichever limit is nearer."""
        done = [0.0]
        if self.steps is not None:
            done.append(step / self.steps)
        if self.minutes is not None:
            done.append(seconds / (60 * self.minutes))
        return max(done)

    def phase(self, progress: float) -> int:
        """Number of the phase, from 0."""
        return min(int(progress * self.phases), self.phases - 1)

    def rate(self, progress: float) -> float:
        """The learning rate: linear warm-up, then half a cosine down to `lowest`."""
        share = min(progress * self.phases - self.phase(progress), 1.0)
        if share < self.warmup:
            return self.lowest + (self.lr - self.lowest) * share / self.warmup
        fallen = (share - self.warmup) / (1 - self.warmup)
        return self.lowest + (self.lr - self.lowest) * (1 + math.cos(math.pi * fallen)) / 2


class Average:
    """Exponential moving average of a network's tensors, batch statistics included.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the first weights are
    soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = {name: t.detach().clone() for name, t in net.state_dict().items()}

    @torch.no_grad()
    def restart(self, net: nn.Module) -> None:
        """Forget all but the current weights."""
        self.updates = 0
        for name, value in net.state_dict().items():
            self.tensors[name].copy_(value)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the current weights; whole numbers are copied."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                averages.append(self.tensors[name])
                values.append(value)
            else:
                self.tensors[name].copy_(value)
        torch._foreach_lerp_(averages, values, share)
