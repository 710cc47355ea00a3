"""Fold the weights of ALGNet's global branch into the last layer of its Mamba.

    s out_proj(y)  ->  out_proj'(y),   W'[o] = s[o] W[o],   s = (1 + inside_all) lamb_g

The local branch has a single weight, lamb_l, which `fold_residual_scale` folds.
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.algnet_block import ALGBlock


def fold_feature_aggregation(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Fold the scale of the global branch of every `ALGBlock`."""
    changes = Changes()
    for name, block in named_instances(net, ALGBlock):
        location = f"{name}.lamb_g".lstrip(".")
        scale = block.global_scale()
        if scale is None:
            changes.declined.append((location, "already folded"))
            continue
        block.g_layer.mamba.out_proj.weight.data *= scale.data.view(-1, 1)
        block.inside_all = None
        block.lamb_g = None
        changes.changed.append(location)
    return changes
