"""mamba-ssm's `selective_scan_fn` as the op SelectiveScan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.errors import DeblurExportError
from deblur_export.plugins.ops.selective_scan import selective_scan


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor:
    """mamba-ssm's selective scan as SelectiveScan, once for each group of B and C.

    Args:
        u, delta, z: [N, D, L].
        A: [D, S].
        B, C: [N, S, L], or [N, G, S, L] for G groups of D / G channels.
        D, delta_bias: [D]; None for zeros.

    Returns:
        [N, D, L], dtype of u.

    Raises:
        DeblurExportError: B or C are constant or A complex, or the last state is asked for.
    """
    if return_last_state:
        raise DeblurExportError("selective_scan_fn: the last state of a scan cannot be exported")
    if A.is_complex() or min(B.dim(), C.dim()) < 3:
        raise DeblurExportError(
            "selective_scan_fn: only real A, and B and C that depend on the input, can be exported"
        )
    inputs, outputs = (m.unsqueeze(1) if m.dim() == 3 else m for m in (B, C))
    groups, channels = max(inputs.shape[1], outputs.shape[1]), u.shape[1]
    width = channels // groups
    skip = u.new_zeros(channels, dtype=torch.float32) if D is None else D.float()
    bias = torch.zeros_like(skip) if delta_bias is None else delta_bias.float()
    results = []
    for group in range(groups):
        own = slice(group * width, (group + 1) * width)
        results.append(
            selective_scan(
                u[:, own],
                delta[:, own].float(),
                A[own].float(),
                inputs[:, group % inputs.shape[1]].to(u.dtype),
                outputs[:, group % outputs.shape[1]].to(u.dtype),
                skip[own],
                None,
                bias[own],
                delta_softplus=int(delta_softplus),
            )
        )
    y = results[0] if groups == 1 else torch.cat(results, 1)
    return y if z is None else y * F.silu(z)
