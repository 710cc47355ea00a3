"""The selective scan in plain differentiable PyTorch, its memory bounded in the length.

Two levels: K chunks of T steps, T about sqrt(L). The chunks are computed side by side: first from a
state of zero, which gives their last states; a short scan carries the states from chunk to chunk;
then again from the right states, which gives the outputs. The decay over a chunk is
exp(A sum(delta)): there is no division and no logarithm, so decays that underflow do no harm.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# How many values of states (N*D*S*L) a backward pass keeps at a time; a longer sequence is
# differentiated piece by piece.
SEGMENT = 2**23


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: int,
) -> Tensor:
    """SelectiveScan with the arguments of the op; float16 and bfloat16 compute in float32.

    Returns:
        [N, D, L], contiguous, dtype of u.
    """
    dtype, compute = u.dtype, torch.promote_types(u.dtype, torch.float32)
    u, delta, A = u.to(compute), delta.to(compute), A.to(compute)
    if delta_bias is not None:
        delta = delta + delta_bias.to(compute).unsqueeze(1)
    if delta_softplus:
        delta = F.softplus(delta)
    y = _scan(A.T, delta, delta * u, B.to(compute), C.to(compute))
    y = y + D.to(compute).unsqueeze(1) * u
    if z is not None:
        y = y * F.silu(z.to(compute))
    return y.to(dtype).contiguous()


def _scan(A: Tensor, *sequences: Tensor) -> Tensor:
    """y_t = <C_t, h_t>, [N, D, L]; A is [S, D], the sequences are delta, delta*u, B and C."""
    n, _, length = sequences[0].shape
    state = sequences[0].new_zeros(n, *A.shape)
    if not torch.is_grad_enabled():
        return _segment(state, A, *sequences)[0]
    size = max(1, SEGMENT // state.numel())
    parts = []
    for start in range(0, length, size):
        piece = (sequence[..., start : start + size] for sequence in sequences)
        y, state = checkpoint(_segment, state, A, *piece, use_reentrant=False)
        parts.append(y)
    return torch.cat(parts, dim=2)


def _segment(
    state: Tensor, A: Tensor, delta: Tensor, delta_u: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs [N, D, L] and last state of a scan that starts in `state` [N, S, D]."""
    length = delta.shape[2]
    steps = math.isqrt(length - 1) + 1
    chunks = _chunks(delta, steps).unsqueeze(3)  # [T, N, K, 1, D]
    # Unbound, because the gradient of an index is a whole tensor of zeros around it.
    dt, du = chunks.unbind(0), _chunks(delta_u, steps).unsqueeze(3).unbind(0)
    Bt, Ct = _chunks(B, steps).unsqueeze(4).unbind(0), _chunks(C, steps).unsqueeze(3).unbind(0)

    # The state at the end of each chunk that starts from zero.
    h = torch.zeros_like(state).unsqueeze(1)
    for t in range(steps):
        h = torch.addcmul(h * torch.exp(dt[t] * A), Bt[t], du[t])

    # The state in which each chunk starts.
    decay = torch.exp(chunks.sum(dim=0) * A)
    starts = []
    for factor, end in zip(decay.unbind(1), h.unbind(1), strict=True):
        starts.append(state)
        state = state * factor + end

    # The outputs.
    h, outputs = torch.stack(starts, dim=1), []
    for t in range(steps):
        h = torch.addcmul(h * torch.exp(dt[t] * A), Bt[t], du[t])
        outputs.append((Ct[t] @ h).squeeze(2))  # [N, K, D]
    y = torch.stack(outputs).permute(1, 3, 2, 0).flatten(2)
    return y[..., :length], state


def _chunks(sequence: Tensor, steps: int) -> Tensor:
    """[N, E, L] -> [T, N, K, E]; zeros at the end of the last chunk leave a state as it is."""
    padded = F.pad(sequence, (0, -sequence.shape[2] % steps))
    return padded.reshape(*sequence.shape[:2], -1, steps).permute(3, 0, 2, 1).contiguous()
