"""Fold the constants of AIBNet's channel attentions and move SFEM's projection.

    Q K' / b                ->  (Q / b) K': 1 / b is folded into the depth-wise filters of Q
    exp(..) - exp(..) + 0.8 ->  the number a
    out(A V)                ->  (out A) V: C*C*H*W fewer multiply-adds, C*C*C more

The last one saves computation if a scale has more pixels than channels: with 64 to 512 channels, as
in the paper, for images larger than 181 x 181. At 256 x 256 it saves 5 % of a sub-decoder.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.aibnet_attention import ChannelAttention
from deblur_export.models.blocks.aibnet_sfem import SFEM


def fold_channel_attention(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Fold the constants of every `ChannelAttention` and move the projection of every `SFEM`."""
    changes = Changes()
    for name, attention in named_instances(net, ChannelAttention):
        reason = _fold_scale(attention)
        if reason:
            changes.declined.append((f"{name}.b", reason))
        else:
            changes.changed.append(f"{name}.b")
    for name, sfem in named_instances(net, SFEM):
        locations = (f"{name}.a", f"{name}.out")
        if sfem.a is not None:
            changes.declined += [(location, "already folded") for location in locations]
            continue
        sfem.a = Parameter(sfem.factor())
        sfem.a_q1 = sfem.a_k1 = sfem.a_q2 = sfem.a_k2 = None
        sfem.project_first = True
        changes.changed += locations
    return changes


def _fold_scale(attention: ChannelAttention) -> str:
    """Fold 1 / b; returns the reason if it cannot be folded, or ""."""
    if attention.b is None:
        return "already folded"
    if attention.normalize_qk:
        return "normalizing the queries would cancel it"
    assert attention.dw.bias is not None
    for part in attention.query_parts:
        rows = slice(part * attention.channels, (part + 1) * attention.channels)
        attention.dw.weight.data[rows] /= attention.b.data
        attention.dw.bias.data[rows] /= attention.b.data
    attention.b = None
    return ""
