"""Mamba, a selective state space layer (Gu and Dao 2023, arXiv:2312.00752, Sec. 3.4, Fig. 3).

Parameter names, shapes and initial values are those of the official code (state-spaces/mamba,
`mamba_ssm.Mamba` without options). Sequences are [N, C, L] here, so that an image is its flattened
feature map and no layer needs a transpose.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.plugins.ops.selective_scan import selective_scan

STEP_RANGE = (1e-3, 1e-1)  # of softplus(dt_proj.bias) at the start of training


class Mamba(nn.Module):
    """Gated causal mixing along a sequence.

    `A_log` [D, S] holds the logarithms of the decay rates. After folding it is None and `A` holds
    the (negative) rates; `A` is None before.

    Args:
        channels: C.
        states: S, the number of states of each of the D = 2C inner channels.
        kernel: size of the causal depth-wise convolution before the scan.
    """

    A_log: Parameter | None
    A: Parameter | None

    def __init__(self, channels: int, states: int = 32, kernel: int = 4) -> None:
        super().__init__()
        wide, rank = 2 * channels, math.ceil(channels / 16)
        self.states, self.rank, self.kernel = states, rank, kernel
        self.in_proj = nn.Linear(channels, 2 * wide, bias=False)
        self.conv1d = nn.Conv1d(wide, wide, kernel, groups=wide)
        self.x_proj = nn.Linear(wide, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, wide)
        self.A_log = Parameter(torch.arange(1.0, states + 1).log().repeat(wide, 1))
        self.D = Parameter(torch.ones(wide))
        self.out_proj = nn.Linear(wide, channels, bias=False)
        self.register_parameter("A", None)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        low, high = (math.log(bound) for bound in STEP_RANGE)
        steps = torch.empty(wide).uniform_(low, high).exp()
        self.dt_proj.bias.data = steps + torch.log(-torch.expm1(-steps))  # inverse of softplus

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, L]; position t depends on positions up to t."""
        u, z = project(x, self.in_proj).chunk(2, dim=1)
        u = F.silu(self.conv1d(F.pad(u, (self.kernel - 1, 0))))
        parts = [self.rank, self.states, self.states]
        delta, b, c = torch.split(project(u, self.x_proj), parts, dim=1)
        y = selective_scan(
            u,
            self.dt_proj.weight @ delta,
            self.rates(),
            b,
            c,
            self.D,
            z,
            self.dt_proj.bias,
            delta_softplus=1,
        )
        return project(y, self.out_proj)

    def rates(self) -> Tensor:
        """The decay rates A, [D, S]."""
        if self.A is not None:
            return self.A
        assert self.A_log is not None
        return -self.A_log.exp()


def project(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear layer to the channels of x [N, C, L]."""
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias.unsqueeze(1)
