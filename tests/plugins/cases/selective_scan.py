"""Cases of SelectiveScan."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deblur_export.plugins.ops.selective_scan import selective_scan
from tests.plugins.harness import Case, Inputs, rand, rounded


def scan(
    n: int,
    d: int,
    s: int,
    length: int,
    *,
    step: float = 0.0,
    spread: float = 1.0,
    rate: float = 1.0,
    z: bool = True,
    bias: bool = True,
    softplus: int = 1,
) -> Callable[..., Inputs]:
    """Steps around exp(step), rates -rate to about -rate * S."""

    def make(dtype: torch.dtype) -> Inputs:
        delta = step + spread * rand(n, d, length, seed=1)
        rates = rate * (torch.arange(1, s + 1) + 0.3 * rand(d, s).tanh())
        tensors = {
            "u": rand(n, d, length),
            "delta": delta if softplus else delta.exp(),
            "A": -rates.double(),
            "B": rand(n, s, length, seed=2),
            "C": rand(n, s, length, seed=3),
            "D": rand(d, seed=4),
            "z": rand(n, d, length, seed=5),
            "delta_bias": rand(d, seed=6) if softplus else 0.1 * rand(d, seed=6).exp(),
        }
        inputs = rounded(tensors, dtype) | {"delta_softplus": softplus}
        absent = {"z": None} if not z else {}
        return inputs | absent | ({"delta_bias": None} if not bias else {})

    return make


def sequential(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: int,
) -> Tensor:
    """The definition: one step after the other."""
    if delta_bias is not None:
        delta = delta + delta_bias.view(1, -1, 1)
    if delta_softplus:
        delta = torch.where(delta > 20, delta, (1 + delta.clamp(max=20).exp()).log())
    h, outputs = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype), []
    for t in range(u.shape[2]):
        dt = delta[:, :, t, None]
        h = (dt * A).exp() * h + torch.einsum("nd,ns->nds", delta[..., t] * u[..., t], B[..., t])
        outputs.append(torch.einsum("nds,ns->nd", h, C[..., t]) + D * u[..., t])
    y = torch.stack(outputs, dim=2)
    return y if z is None else y * z / (1 + (-z).exp())


CASES = [
    Case("SelectiveScan", name, make, selective_scan, sequential, rank=3)
    for name, make in (
        *((f"length-{length}", scan(2, 3, 5, length)) for length in (1, 2, 15, 16, 17, 257)),
        ("mamba", scan(1, 6, 16, 1000, step=-4.6)),
        ("batch", scan(2, 8, 32, 300, step=-4.6)),
        ("no-gate", scan(2, 5, 4, 33, z=False)),
        ("no-bias", scan(2, 5, 4, 33, bias=False)),
        ("plain", scan(2, 5, 4, 33, z=False, bias=False, softplus=0)),
        ("plain-gate-bias", scan(1, 5, 4, 33, softplus=0, step=-1.0)),
        ("huge-steps", scan(1, 5, 8, 300, step=30.0, spread=20.0, rate=20.0)),  # delta A: -1e4
        ("tiny-steps", scan(1, 5, 8, 300, step=-14.0)),
        ("slow-decay", scan(1, 3, 4, 1000, step=-4.6, rate=1e-4)),
        ("one-channel-one-state", scan(1, 1, 1, 40)),
    )
]
