"""Precompute the decay rates of Mamba, A = -exp(A_log)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import Parameter

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.blocks.mamba import Mamba


def fold_state_matrix(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Replace `A_log` of every `Mamba` layer by `A`."""
    changes = Changes()
    for name, mamba in named_instances(net, Mamba):
        location = f"{name}.A_log".lstrip(".")
        if mamba.A_log is None:
            changes.declined.append((location, "already folded"))
            continue
        mamba.A = Parameter(mamba.rates().data)
        mamba.A_log = None
        changes.changed.append(location)
    return changes
