"""The recurrence of Mamba: a linear state space model whose coefficients depend on the input.

    delta_t = softplus(delta_t + delta_bias)
    h_t[d, s] = exp(delta_t[d] A[d, s]) h_{t-1}[d, s] + delta_t[d] u_t[d] B_t[s],   h_0 = 0
    y_t[d] = (sum_s C_t[s] h_t[d, s] + D[d] u_t[d]) silu(z_t[d])

The arguments mean what they mean in mamba-ssm's `selective_scan_fn` with variable B and C of one
group: A is discretized exactly, B by an Euler step. Without z there is no gate, without delta_bias
nothing is added, and with delta_softplus = 0 delta is taken as it is.

The state is float32 whatever the type of the inputs: in float16 it would cost 6e-4 relative, in
bfloat16 5e-3. A and delta stay float32 in a file of lower precision. A differs between the channels
of a head, so the matrix form of Mamba-2 does not apply. The CPU kernel also takes u, delta, B, C, z
and y with the channels last, as float32 or bfloat16; the CUDA kernel takes up to 64 states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from deblur_export.plugins.libraries import cpu, cuda
from deblur_export.plugins.ops.gradient import register_gradient
from deblur_export.plugins.ops.selective_scan_bodies import body
from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference
from deblur_export.plugins.parameters import (
    SCAN,
    AttributeSpec,
    NativeFunction,
    TensorSpec,
)
from deblur_export.plugins.spec import OpSpec

CUDA_STATES = 64  # the most that the CUDA kernel takes


@torch.library.custom_op("deblur::selective_scan", mutates_args=())
def selective_scan(
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
    """Scan each channel d with S states, in float32 (float64 for float64 inputs).

    Args:
        u: [N, D, L] input sequence.
        delta: [N, D, L] step sizes, positive; with delta_softplus any numbers.
        A: [D, S] state matrix (its diagonal), negative.
        B: [N, S, L] input matrix.
        C: [N, S, L] output matrix.
        D: [D] skip connection.
        z: [N, D, L] gate: the result is multiplied by silu(z); None for no gate.
        delta_bias: [D], added to delta first; None for zeros.
        delta_softplus: 1 to take softplus(delta) (the identity above 20), 0 for delta itself.

    Returns:
        [N, D, L], contiguous, dtype of u.

    Raises:
        ValueError: a shape does not fit, or the sequence is empty.
    """
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    SPEC.check(*tensors, delta_softplus=delta_softplus)
    if u.shape[2] == 0:
        raise ValueError("SelectiveScan: the sequence is empty")
    if cpu.supports(SPEC, *tensors):
        return cpu.compute(SPEC, *tensors, delta_softplus=delta_softplus)
    if cuda.supports(SPEC, *tensors) and A.shape[1] <= CUDA_STATES:
        return cuda.compute(SPEC, *tensors, delta_softplus=delta_softplus)
    return selective_scan_reference(*tensors, delta_softplus=delta_softplus)


@selective_scan.register_fake
def _(
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
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


register_gradient(selective_scan, selective_scan_reference)


@register_flop_formula(torch.ops.deblur.selective_scan)
def _flops(
    u_shape: torch.Size, delta_shape: torch.Size, a_shape: torch.Size, *args: Any, **kwargs: Any
) -> int:
    """Four products per state (delta A, exp(delta A) h, delta u B, C h) and three per value (delta
    u, D u and the gate); the exponentials are not counted."""
    n, d, length = u_shape
    return int(2 * n * d * length * (4 * a_shape[1] + 3))


SPEC = OpSpec(
    name="SelectiveScan",
    doc="h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t;  y_t = (<C_t, h_t> + D u_t) silu(z_t).",
    about=__doc__,
    source="Gu and Dao, Mamba, 2023, arXiv:2312.00752, Sec. 3.2, Alg. 2",
    torch_op=torch.ops.deblur.selective_scan.default,
    inputs={
        "u": TensorSpec("T", "N, D, L", "input sequence", channels_last=True),
        "delta": TensorSpec(
            "tensor(float)",
            "N, D, L",
            "step sizes, positive; with delta_softplus any numbers",
            fp32=SCAN,
            channels_last=True,
        ),
        "A": TensorSpec(
            "tensor(float)", "D, S", "state matrix (its diagonal), negative", fp32=SCAN
        ),
        "B": TensorSpec("T", "N, S, L", "input matrix", channels_last=True),
        "C": TensorSpec("T", "N, S, L", "output matrix", channels_last=True),
        "D": TensorSpec("tensor(float)", "D", "skip connection", fp32=SCAN),
        "z": TensorSpec(
            "T", "N, D, L", "gate: y is multiplied by silu(z)", optional=True, channels_last=True
        ),
        "delta_bias": TensorSpec(
            "tensor(float)", "D", "added to delta first", fp32=SCAN, optional=True
        ),
    },
    outputs={"y": TensorSpec("T", "N, D, L", "output sequence")},
    attributes={
        "delta_softplus": AttributeSpec("1 takes softplus(delta), 0 delta itself", values=(0, 1))
    },
    body=body,
    bodies={
        "portable, ort": "chunks of the sequence, scanned side by side: three Scan nodes",
        "openvino, rtx": "a static graph without loops: chunks of 16 steps, blocks of 16 chunks, "
        "then a prefix sum over the blocks in 16 doubling steps",
    },
    specialize=body,
    cpu=NativeFunction(
        "deblur_selective_scan",
        "layout u delta A B C D z delta_bias y n d states length delta_softplus threads",
    ),
    cuda=NativeFunction(
        "deblur_cuda_selective_scan",
        "type u delta A B C D z delta_bias y n d states length delta_softplus workspace "
        "workspace_bytes stream",
        workspace="type n d states length",
    ),
    torch_on_cpu=True,
)

SPECS = (SPEC,)
