"""Fold a per-channel scale into the layer before it.

x + s * layer(y)  ->  x + layer'(y),   W'[o] = s[o] W[o],   bias'[o] = s[o] bias[o]
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.foldable import Foldable


def fold_residual_scale(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Fold the `residual_scales` of every `Foldable` block."""
    changes = Changes()
    for name, block in named_instances(net, Foldable):
        for scale_name, layer_name in block.residual_scales:
            scale, layer = getattr(block, scale_name), block.get_submodule(layer_name)
            if scale is None:
                changes.declined.append((f"{name}.{scale_name}", "already folded"))
                continue
            layer.weight.data *= scale.data.view(-1, *[1] * (layer.weight.dim() - 1))
            if layer.bias is not None:
                layer.bias.data *= scale.data.flatten()
            setattr(block, scale_name, None)
            changes.changed.append(f"{name}.{scale_name}")
    return changes
