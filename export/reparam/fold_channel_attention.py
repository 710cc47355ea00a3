"""Fold the constants of AIBNet's channel attentions and move SFEM's projection.

    Q K' / b                ->  (Q / b) K': the queries' depth-wise filters and biases take 1 / b
    exp(..) - exp(..) + 0.8 ->  the number a
    out(A V)                ->  (out A) V: C*C*H*W multiply-adds less, C*C*C more

The last one pays where a scale has more pixels than channels: with 64 to 512 channels, as in the
paper, from images of 181 x 181 on, and at 256 x 256 it saves 5 % of a sub-decoder.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.aibnet_attention import ChannelAttention
from deblur_export.models.blocks.aibnet_sfem import SFEM


def fold_channel_attention(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    changes = Changes()
    for name, attention in named_instances(net, ChannelAttention):
        reason = _fold_scale(attention)
        if reason:
            changes.declined.append((f"{name}.b", reason))
        else:
            changes.changed.append(f"{name}.b")
    for name, sfem in named_instances(net, SFEM):
        places = (f"{name}.a", f"{name}.out")
        if sfem.a is not None:
            changes.declined += [(place, "already folded") for place in places]
            continue
        sfem.a = Parameter(sfem.factor())
        sfem.a_q1 = sfem.a_k1 = sfem.a_q2 = sfem.a_k2 = None
        sfem.project_first = True
        changes.changed += places
    return changes


def _fold_scale(attention: ChannelAttention) -> str:
    """Fold 1 / b; returns why not, or an empty string."""
    if attention.b is None:
        return "already folded"
    if attention.normalize_qk:
        return "the norm of the queries would undo it"
    assert attention.dw.bias is not None
    for part in attention.query_parts:
        rows = slice(part * attention.channels, (part + 1) * attention.channels)
        attention.dw.weight.data[rows] /= attention.b.data
        attention.dw.bias.data[rows] /= attention.b.data
    attention.b = None
    return ""
