"""Merge the 2Q + 1 convolutions of a Volterra filter into one.

    W1*x, Wa_1*x, ..., Wa_Q*x, Wb_1*x, ..., Wb_Q*x  ->  W*x,
    W[c (2Q + 1) + t] = term t of output channel c

All of them read the same two channels for output channel c. The outputs of a group of a convolution
are adjacent, so the terms of a channel are adjacent as well. On ONNX Runtime, grouped convolutions
have a high cost per group, and each of them reads the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.volterra import VolterraFilter


def merge_volterra(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Merge the convolutions of every `VolterraFilter`."""
    changes = Changes()
    for name, volterra in named_instances(net, VolterraFilter):
        if not volterra.wa:
            changes.declined.append((name, "already folded"))
            continue
        volterra.w1 = merge([volterra.w1, *volterra.wa, *volterra.wb])
        volterra.wa, volterra.wb = nn.ModuleList(), nn.ModuleList()
        changes.changed.append(name)
    return changes


def merge(terms: list[nn.Conv2d]) -> nn.Conv2d:
    """Merge grouped convolutions of the same input; outputs are ordered by channel, then term."""
    first = terms[0]
    merged = nn.Conv2d(
        first.in_channels, len(terms) * first.out_channels, 3, padding=1, groups=first.groups
    ).to(first.weight)
    merged.weight.data = torch.stack([term.weight.data for term in terms], dim=1).flatten(0, 1)
    assert merged.bias is not None
    biases = [term.bias.data for term in terms if term.bias is not None]
    merged.bias.data = torch.stack(biases, dim=1).flatten()
    return merged
