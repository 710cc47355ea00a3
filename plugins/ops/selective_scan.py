"""SelectiveScan: the recurrence of Mamba (Gu and Dao 2023, arXiv:2312.00752, Sec. 3.2, Alg. 2).

    delta_t = softplus(delta_t + delta_bias)
    h_t[d, s] = exp(delta_t[d] A[d, s]) h_{t-1}[d, s] + delta_t[d] u_t[d] B_t[s],   h_0 = 0
    y_t[d] = (sum_s C_t[s] h_t[d, s] + D[d] u_t[d]) silu(z_t[d])

Arguments mean what they mean in mamba-ssm's `selective_scan_fn` with variable B and C of one
group: A is discretised exactly, B by an Euler step. The state is float32 whatever the dtype of the
inputs: in float16 it costs 6e-4 relative, in bfloat16 5e-3. A and S belong to single channels,
so the matrix form of Mamba-2 does not apply.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from deblur_export.plugins.libraries import cpu, cuda
from deblur_export.plugins.ops.gradient import register_gradient
from deblur_export.plugins.ops.ranks import check_ranks
from deblur_export.plugins.ops.selective_scan_bodies import body
from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference
from deblur_export.plugins.spec import OpSpec


@torch.library.custom_op("deblur::selective_scan", mutates_args=())
def selective_scan(
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
    """Scan each channel d with S states a channel, in float32 (float64 for float64 inputs).

    Args:
        u: [N, D, L] values.
        delta: [N, D, L] step sizes, or what softplus makes them of.
        A: [D, S] rates, negative.
        B: [N, S, L] how a value enters the states.
        C: [N, S, L] how the states are read out.
        D: [D] weight of the value itself.
        z: [N, D, L] gate: the result is multiplied by silu(z).
        delta_bias: [D], added to delta first.
        delta_softplus: 1 to take softplus(delta) (the identity above 20), 0 for delta itself.

    Returns:
        [N, D, L], contiguous, dtype of u.

    Raises:
        ValueError: a shape does not fit, or the sequence is empty.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    if cpu.takes(*tensors):
        return cpu.selective_scan(*tensors, states=A.shape[1], delta_softplus=delta_softplus)
    if cuda.takes(*tensors) and A.shape[1] <= cuda.MOST_STATES:
        return cuda.selective_scan(*tensors, delta_softplus)
    return selective_scan_reference(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus=delta_softplus
    )


def _check(u: Tensor, *others: Tensor | None) -> None:
    names = ("delta", "A", "B", "C", "D", "z", "delta_bias")
    rates = others[1]
    assert rates is not None
    check_ranks("selective_scan", {"u": (u, 3), "A": (rates, 2)})
    (n, d, length), states = u.shape, rates.shape[-1]
    sequence, row = (n, d, length), (n, states, length)
    shapes = (sequence, (d, states), row, row, (d,), sequence, (d,))
    for name, tensor, shape in zip(names, others, shapes, strict=True):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"selective_scan: {name} is {tuple(tensor.shape)}, not {shape}")
    if length == 0:
        raise ValueError("selective_scan: the sequence is empty")


@selective_scan.register_fake
def _(
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
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


register_gradient(selective_scan, selective_scan_reference)


@register_flop_formula(torch.ops.deblur.selective_scan)
def _flops(
    u_shape: torch.Size, delta_shape: torch.Size, a_shape: torch.Size, *args: Any, **kwargs: Any
) -> int:
    """Four products a state (delta A, decay h, delta u B, C h) and three a value (delta u, D u and
    the gate); the exponentials are not counted."""
    n, d, length = u_shape
    return int(2 * n * d * length * (4 * a_shape[1] + 3))


SPEC = OpSpec(
    name="SelectiveScan",
    doc="h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t;  y_t = (<C_t, h_t> + D u_t) silu(z_t).",
    torch_op=torch.ops.deblur.selective_scan.default,
    inputs={
        "u": "T",
        "delta": "tensor(float)",
        "A": "tensor(float)",
        "B": "T",
        "C": "T",
        "D": "tensor(float)",
        "z": "T",
        "delta_bias": "tensor(float)",
    },
    optional=("z", "delta_bias"),
    outputs={"y": "T"},
    attributes=("delta_softplus",),
    body=body,
    specialize=body,
)
