"""Fold softmax and threshold of the mask predictor into its last linear layer.

softmax(z)[0] > t  <=>  z0 - z1 - log(t / (1 - t)) > 0
two rows (w0, b0), (w1, b1)  ->  one row (w0 - w1, b0 - b1 - log(t / (1 - t)))
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.m2aenet import M2AENet


def fold_mask_threshold(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Fold the threshold of every `M2AENet` into its mask predictor."""
    changes = Changes()
    for name, owner in named_instances(net, M2AENet):
        head, location = owner.mask_predictor.head, f"{name}.mask_predictor".lstrip(".")
        last = head[-1]
        if last.out_features == 1:
            changes.declined.append((location, "already folded"))
            continue
        folded = nn.Linear(last.in_features, 1).to(last.weight)
        folded.weight.data = last.weight.data[:1] - last.weight.data[1:]
        folded.bias.data = last.bias.data[:1] - last.bias.data[1:] - owner.mask.logit
        head[-1] = folded
        changes.changed.append(location)
    return changes
