"""Merge the routers of a mixture of experts, linear layers of the same input, into one layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.ddre import DDRE


def merge_routers(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Merge the routers of every `DDRE`."""
    changes = Changes()
    for name, mixture in named_instances(net, DDRE):
        routers = list(mixture.routers)
        if len(routers) == 1:
            changes.declined.append((name, "already folded"))
            continue
        rows = sum(router.out_features for router in routers)
        merged = nn.Linear(routers[0].in_features, rows).to(routers[0].weight)
        merged.weight.data = torch.cat([router.weight.data for router in routers])
        merged.bias.data = torch.cat([router.bias.data for router in routers])
        mixture.routers = nn.ModuleList([merged])
        changes.changed.append(name)
    return changes
