"""Fold the affine part of LayerNorm2d into the 1x1 convolution behind it.

conv(w * n + b)  ->  conv'(n),   W'[o, i] = W[o, i] w[i],   bias' = bias + W b
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.naf import LayerNorm2d, NAFBlock


def fold_layer_norm(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    changes = Changes()
    for name, block in named_instances(net, NAFBlock):
        for norm_name, conv_name in block.layer_norms:
            norm, conv = getattr(block, norm_name), getattr(block, conv_name)
            if norm.weight is None:
                changes.declined.append((f"{name}.{norm_name}", "already folded"))
                continue
            _fold(norm, conv)
            changes.changed.append(f"{name}.{norm_name}")
        for norm_name, reason in block.layer_norms_kept.items():
            changes.declined.append((f"{name}.{norm_name}", reason))
    return changes


def _fold(norm: LayerNorm2d, conv: nn.Conv2d) -> None:
    assert norm.weight is not None and norm.bias is not None and conv.bias is not None
    conv.bias.data += conv.weight.data.flatten(1) @ norm.bias.data
    conv.weight.data *= norm.weight.data.view(1, -1, 1, 1)
    norm.weight = None
    norm.bias = None
