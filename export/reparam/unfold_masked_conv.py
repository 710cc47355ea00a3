"""Merge the 1x1 and the depth-wise 3x3 of a mask-aware block into one dense 3x3 as a matrix.

    dw(conv(x))  ->  W' unfold([x, 1]) + bias2
    W'[o, tap, i] = w2[o, tap] w1[o, i],   W'[o, tap, ones] = w2[o, tap] bias1[o]

(M2AENet, Sec. 3.2). Each masked pixel is then a row of a single matrix product. bias1 needs the
channel of ones: the depth-wise convolution pads with zeros, not with bias1, so folding
bias1[o] sum(w2[o]) into bias2 would be wrong at the border of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.masked import UnfoldedMaskedConv
from deblur_export.models.m2aenet import M2ASBlock

# The merged form has nine times the products. On CPU no gain beyond noise was measured, and at 256
# channels it takes up to three times as long (bench/README.md).
SLOWER = "on CPU gather -> 1x1 -> depth-wise 3x3 is faster (bench/ops.py); force=True merges it"


def unfold_masked_conv(
    net: nn.Module, probe: tuple[Tensor, ...], *, force: bool = False
) -> Changes:
    """Merge every mask-aware block if `force` is set; otherwise decline with the reason.

    A merged network gathers its masked pixels, so that its portable export has data-dependent
    shapes, too.
    """
    changes = Changes()
    for name, block in named_instances(net, M2ASBlock):
        if block.unfolded is not None:
            changes.declined.append((name, "already unfolded"))
        elif not force:
            changes.declined.append((name, SLOWER))
        else:
            block.unfolded = merge(block.conv1, block.conv2)
            block.conv1 = block.conv2 = nn.Identity()
            changes.changed.append(name)
    return changes


def merge(conv1: nn.Conv2d, conv2: nn.Conv2d) -> UnfoldedMaskedConv:
    """Merge the 1x1 `conv1` (C -> 2C) and the depth-wise 3x3 `conv2` into one module."""
    assert conv1.bias is not None and conv2.bias is not None
    merged = UnfoldedMaskedConv(conv1.in_channels).to(conv1.weight)
    pointwise = torch.cat([conv1.weight.flatten(1), conv1.bias.unsqueeze(1)], dim=1)
    taps = conv2.weight.flatten(1)
    merged.weight.data = (taps.unsqueeze(2) * pointwise.unsqueeze(1)).detach().flatten(1)
    merged.bias.data = conv2.bias.detach().clone()
    return merged
