"""The selective scan in plain differentiable torch, its memory bounded in the length.

Two levels: K chunks of T steps, T about sqrt(L). The chunks run side by side: once from a state of
zero, which gives their end states; a short scan carries the states from chunk to chunk; once more
from the right state, which gives the outputs. The decay over a chunk is exp(A sum(delta)): there
is no division and no logarithm, so decays that underflow do no harm.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# States (N*D*S*L values) that a backward pass keeps at a time; a longer sequence is differentiated
# piece by piece.
SEGMENT = 2**23


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: int,
) -> Tensor:
    """SelectiveScan; arguments as the op's. float16 and bfloat16 compute in float32."""
    compute = torch.promote_types(u.dtype, torch.float32)
    values, step, rates = u.to(compute), delta.to(compute), A.to(compute)
    if delta_bias is not None:
        step = step + delta_bias.to(compute).unsqueeze(1)
    if delta_softplus:
        step = F.softplus(step)
    sequences = (step, step * values, B.to(compute), C.to(compute))
    y = _scan(rates.T, *sequences) + D.to(compute).unsqueeze(1) * values
    if z is not None:
        y = y * F.silu(z.to(compute))
    return y.to(u.dtype).contiguous()


def _scan(rates: Tensor, *sequences: Tensor) -> Tensor:
    """y_t = <C_t, h_t>, [N, D, L]; rates [S, D], sequences delta, delta*u, B and C."""
    n, _, length = sequences[0].shape
    state = sequences[0].new_zeros(n, *rates.shape)
    if not torch.is_grad_enabled():
        return _segment(state, rates, *sequences)[0]
    size = max(1, SEGMENT // state.numel())
    parts = []
    for start in range(0, length, size):
        piece = (sequence[..., start : start + size] for sequence in sequences)
        y, state = checkpoint(_segment, state, rates, *piece, use_reentrant=False)
        parts.append(y)
    return torch.cat(parts, dim=2)


def _segment(
    state: Tensor, rates: Tensor, step: Tensor, values: Tensor, inputs: Tensor, readout: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs [N, D, L] and last state of a scan that starts in `state` [N, S, D]."""
    length = step.shape[2]
    steps = math.isqrt(length - 1) + 1
    sizes = _chunks(step, steps).unsqueeze(3)  # [T, N, K, 1, D]
    # Unbound, because the gradient of an index is a whole tensor of zeros around it.
    dt, x = sizes.unbind(0), _chunks(values, steps).unsqueeze(3).unbind(0)
    b, c = _chunks(inputs, steps).unsqueeze(4).unbind(0), _chunks(readout, steps).unsqueeze(3)

    h = torch.zeros_like(state).unsqueeze(1)
    for t in range(steps):
        h = torch.addcmul(h * torch.exp(dt[t] * rates), b[t], x[t])
    decay = torch.exp(sizes.sum(dim=0) * rates)
    starts = []
    for decayed, entered in zip(decay.unbind(1), h.unbind(1), strict=True):
        starts.append(state)
        state = state * decayed + entered

    h, outputs = torch.stack(starts, dim=1), []
    for t, read in enumerate(c.unbind(0)):
        h = torch.addcmul(h * torch.exp(dt[t] * rates), b[t], x[t])
        outputs.append((read @ h).squeeze(2))  # [N, K, D]
    y = torch.stack(outputs).permute(1, 3, 2, 0).flatten(2)
    return y[..., :length], state


def _chunks(sequence: Tensor, steps: int) -> Tensor:
    """[N, E, L] -> [T, N, K, E]; the last chunk is filled with zeros, which keep a state."""
    filled = F.pad(sequence, (0, -sequence.shape[2] % steps))
    return filled.reshape(*sequence.shape[:2], -1, steps).permute(3, 0, 2, 1).contiguous()
