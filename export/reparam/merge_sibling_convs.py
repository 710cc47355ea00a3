"""Merge 3x3 convolutions of the same input into one.

conv_1(x), conv_2(x), ...  ->  split(conv(x)),   W = [W_1; W_2; ...]
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.saphn_attention import Siblings


def merge_sibling_convs(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Merge the convolutions of every `Siblings` module."""
    changes = Changes()
    for name, siblings in named_instances(net, Siblings):
        if siblings.is_merged:
            changes.declined.append((name, "already folded"))
        else:
            siblings.merge()
            changes.changed.append(name)
    return changes
