"""Fold the affine part of a layer normalization into the 1x1 layers after it.

layer(w * n + b)  ->  layer'(n),   W'[o, i] = W[o, i] w[i],   bias' = bias + W b
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.foldable import Foldable
from deblur_export.models.blocks.naf import LayerNorm2d


def fold_layer_norm(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Fold the `layer_norms` of every `Foldable` block."""
    changes = Changes()
    for name, block in named_instances(net, Foldable):
        for norm_name, *layer_names in block.layer_norms:
            norm = block.get_submodule(norm_name)
            if norm.weight is None:
                changes.declined.append((f"{name}.{norm_name}", "already folded"))
                continue
            for layer_name in layer_names:
                _fold(norm, block.get_submodule(layer_name))
            norm.weight = None
            norm.bias = None
            changes.changed.append(f"{name}.{norm_name}")
        for norm_name, reason in block.unfolded_layer_norms.items():
            changes.declined.append((f"{name}.{norm_name}", reason))
    return changes


def _fold(norm: LayerNorm2d | nn.LayerNorm, layer: nn.Conv2d | nn.Linear) -> None:
    assert norm.weight is not None and norm.bias is not None
    weight = layer.weight.data
    shift = weight.flatten(1) @ norm.bias.data
    layer.bias = Parameter(shift if layer.bias is None else layer.bias.data + shift)
    weight *= norm.weight.data.view(1, -1, *[1] * (weight.dim() - 2))
