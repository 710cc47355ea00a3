"""Progress of a training, its learning rate, and the moving average of its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a training in equal phases, each with warm-up and cosine decay.

    Attributes:
        steps, minutes: length of the run; the first limit ends it.
        phases: number of phases.
        lr, lowest: learning rate after the warm-up and at the end of a phase.
        warmup: fraction of a phase in which the rate rises linearly.
    """

    steps: int | None
    minutes: float | None
    phases: int = 1
    lr: float = 1e-3
    lowest: float = 1e-6
    warmup: float = 0.03

    def progress(self, step: int, seconds: float) -> float:
        """The completed fraction of the run: 0 at the start, 1 or more at the end."""
        done = [0.0]
        if self.steps is not None:
            done.append(step / self.steps)
        if self.minutes is not None:
            done.append(seconds / (60 * self.minutes))
        return max(done)

    def phase(self, progress: float) -> int:
        """Index of the phase, from 0."""
        return min(int(progress * self.phases), self.phases - 1)

    def rate(self, progress: float) -> float:
        """The learning rate: a linear warm-up, then half a cosine period down to `lowest`."""
        fraction = min(progress * self.phases - self.phase(progress), 1.0)
        if fraction < self.warmup:
            return self.lowest + (self.lr - self.lowest) * fraction / self.warmup
        decayed = (fraction - self.warmup) / (1 - self.warmup)
        return self.lowest + (self.lr - self.lowest) * (1 + math.cos(math.pi * decayed)) / 2


class Average:
    """Exponential moving average of a network's tensors, including batch statistics.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the influence of the
    initial weights vanishes quickly.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = {name: t.detach().clone() for name, t in net.state_dict().items()}

    @torch.no_grad()
    def restart(self, net: nn.Module) -> None:
        """Set the average to the current weights."""
        self.updates = 0
        for name, value in net.state_dict().items():
            self.tensors[name].copy_(value)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Add the current weights to the average; integer tensors are copied."""
        self.updates += 1
        fraction = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                averages.append(self.tensors[name])
                values.append(value)
            else:
                self.tensors[name].copy_(value)
        torch._foreach_lerp_(averages, values, fraction)
