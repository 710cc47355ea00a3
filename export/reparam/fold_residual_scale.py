"""Fold a per-channel residual scale into the convolution before it.

x + s * conv(y)  ->  x + conv'(y),   W'[o] = s[o] W[o],   bias'[o] = s[o] bias[o]
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.naf import NAFBlock


def fold_residual_scale(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    changes = Changes()
    for name, block in named_instances(net, NAFBlock):
        for scale_name, conv_name in block.residual_scales:
            scale, conv = getattr(block, scale_name), getattr(block, conv_name)
            if scale is None:
                changes.declined.append((f"{name}.{scale_name}", "already folded"))
                continue
            conv.weight.data *= scale.data.view(-1, 1, 1, 1)
            conv.bias.data *= scale.data.flatten()
            setattr(block, scale_name, None)
            changes.changed.append(f"{name}.{scale_name}")
    return changes
