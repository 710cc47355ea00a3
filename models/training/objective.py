"""The training objective of each network: loss terms of its output in training mode.

The weights are those of the papers. M2AENet: L1 + (1 - SSIM) + 0.1 frequency + 0.01 cross-entropy
of the mask + reblur + alpha times the total variation of the motion; the paper does not give alpha,
which is 0.001 here. All others: Charbonnier + 0.05 edge + 0.1 frequency, summed over the supervised
outputs of the network.

With `Weights.images` = "relative", the relative squared error replaces all terms on images. Short
trainings gain more from it: the gradient of an L1 loss, especially of spectra, is almost as large
where there is only noise to remove as where there is blur.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal

import torch
from torch import Tensor

from deblur_export.models import algnet, m2aenet, saphn
from deblur_export.models.training import losses
from deblur_export.models.training.data.dataset import Batch
from deblur_export.models.training.reblur import reblur_loss

Terms = Mapping[str, Tensor]
Images = Literal["paper", "relative"]


@dataclass(frozen=True)
class Weights:
    """Factors of the loss terms. Those of terms that a network does not have are not used.

    Attributes:
        images: which terms compare images; see the module.
        edge, frequency, mask, reblur: factors of the terms of that name.
        variation: factor of the total variation of the motion.
        policy: factor of the REINFORCE term of SAPHN+.
    """

    images: Images = "paper"
    edge: float = 0.05
    frequency: float = 0.1
    mask: float = 0.01
    reblur: float = 1.0
    variation: float = 1e-3
    policy: float = 0.01


@singledispatch
def terms(output: Any, batch: Batch, weights: Weights) -> Terms:
    """Compute the weighted loss terms by name; their sum is the loss.

    Args:
        output: what the network returns in training mode: an image [N, 3, H, W], a record with
            such an image as its field `restored`, or a network's own `TrainingOutput`.
        batch: input and ground truth.
        weights: factors of the terms.

    Returns:
        Scalars in float32.
    """
    return restoration(getattr(output, "restored", output), batch, weights)


@terms.register
def _(output: m2aenet.TrainingOutput, batch: Batch, weights: Weights) -> Terms:
    restored, flow = output.restored.float(), output.flow.float()
    return {
        **m2aenet_restoration(restored, batch, weights),
        "mask": weights.mask * losses.mask_cross_entropy(output.logits, batch.mask),
        "reblur": weights.reblur * reblur_loss(flow, batch.sharp, batch.blurred),
        "variation": weights.variation * losses.total_variation(flow),
    }


@terms.register
def _(output: algnet.TrainingOutput, batch: Batch, weights: Weights) -> Terms:
    """All four sizes have the same weight; each is compared with every s-th pixel of the sharp
    image."""
    pairs = zip(output, (8, 4, 2, 1), strict=True)
    return _sum([restoration(image, batch.every(step), weights) for image, step in pairs])


@terms.register
def _(output: saphn.TrainingOutput, batch: Batch, weights: Weights) -> Terms:
    """All three stages have the same weight; the samplers of SAPHN+ are trained with REINFORCE.

    Their log-probability is the joint one of the draws of all pixels, so it is divided by the
    largest number of points in an image. The baseline is the mean reward of the batch.
    """
    total = _sum([restoration(image, batch, weights) for image in output.outputs])
    if output.policy is None:
        return total
    reward = saphn.reward(output, batch.sharp).detach()
    advantage = reward - reward.mean()
    choice = -(advantage * output.policy.log_prob).mean() / output.policy.budget
    return {**total, "policy": weights.policy * choice}


def m2aenet_restoration(restored: Tensor, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    """The image terms of M2AENet's paper, or the relative error; `restored` is [N, 3, H, W]."""
    if weights.images == "relative":
        return restoration(restored, batch, weights)
    return {
        "l1": losses.l1(restored, batch.sharp),
        "ssim": losses.dissimilarity(restored, batch.sharp),
        "frequency": weights.frequency * losses.frequency(restored, batch.sharp),
    }


def restoration(restored: Tensor, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    """Charbonnier, edge and frequency terms, or the relative error; `restored` is [N, 3, H, W]."""
    restored, sharp = restored.float(), batch.sharp
    if weights.images == "relative":
        return {"relative": losses.relative_error(restored, sharp, batch.blurred)}
    return {
        "charbonnier": losses.charbonnier(restored, sharp),
        "edge": weights.edge * losses.edge(restored, sharp),
        "frequency": weights.frequency * losses.frequency(restored, sharp),
    }


def _sum(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sum the terms of the same name."""
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
