"""Merge the experts of size 1 of all routers, and the residual, into one 1x1 for each image.

    x + sum_r p_r (W_r (d_r x + c_r) + b_r)  ->  (I + sum_r p_r W'_r) x + sum_r p_r b'_r,
    W'_r = W_r diag(d_r),   b'_r = b_r + W_r c_r

This saves two of the fifteen 1x1 products of R = 3 routers; `DDRE.add_merged_experts` computes it.
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.ddre import DDRE, Expert

# A single product over the concatenated depth-wise outputs needs twelve maps in memory at once.
SLOWER = "experts of size 3 to 9 keep their own 1x1: a single product needs more memory"


def merge_experts(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Merge the experts of size 1 of every `DDRE`."""
    changes = Changes()
    for name, mixture in named_instances(net, DDRE):
        pointwise = [experts[0] for experts in mixture.experts]
        if all(expert.depthwise is None for expert in pointwise):
            changes.declined.append((name, "already folded"))
            continue
        for expert in pointwise:
            fold_depthwise(expert)
        changes.changed.append(name)
        changes.declined.append((name, SLOWER))
    return changes


def fold_depthwise(expert: Expert) -> None:
    """Fold a depth-wise 1x1, that is a factor and an offset per channel, into the 1x1 after it."""
    factor, layer = expert.depthwise, expert.pointwise
    assert factor is not None and factor.bias is not None and layer.bias is not None
    layer.bias.data += layer.weight.data.flatten(1) @ factor.bias.data
    layer.weight.data *= factor.weight.data.view(1, -1, 1, 1)
    expert.depthwise = None
