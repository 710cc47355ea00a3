"""The training objective of each network: loss terms of its output in training mode.

Image terms (`IMAGE_TERMS`), summed over the supervised outputs of a network with equal weights, and
which networks they are the default of (`default_images`):

- psnr: the PSNR loss. NAFNet: its official code trains with it (options/train/GoPro).
- l1-ssim: L1 + (1 - SSIM) + 0.1 frequency. M2AENet (Sec. 3.4).
- charbonnier: Charbonnier + 0.05 edge + 0.1 frequency. AIBNet. It is also what ALGNet and DHNet, by
  the same authors, and UFPNet and SAPHN begin with, of whose own image losses the sources that were
  available do not tell.
- relative: the squared error relative to that of the input, of no paper. Short trainings gain more
  from it: the gradient of an L1 loss, especially of spectra, is almost as large where there is only
  noise to remove as where there is blur.

M2AENet adds 0.01 cross-entropy of the mask + reblur + alpha times the total variation of the motion
at nine moments (Eq. 10). The paper does not give alpha, which is 0.0002 here. SAPHN+ adds a policy
gradient with the reward of each pixel (arXiv:2402.06117, Eq. 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal

import torch
from torch import Tensor

from deblur_export.models import algnet, m2aenet, saphn
from deblur_export.models.training import losses
from deblur_export.models.training.data.dataset import Batch
from deblur_export.models.training.reblur import motion_variation, reblur_loss

Terms = Mapping[str, Tensor]
Images = Literal["psnr", "l1-ssim", "charbonnier", "relative"]


def default_images(network: str) -> Images:
    """The image terms that the network with this name trains with by default; see the module."""
    known: dict[str, Images] = {"nafnet": "psnr", "m2aenet": "l1-ssim"}
    return known.get(network, "charbonnier")


@dataclass(frozen=True)
class Weights:
    """Factors of the loss terms. Those of terms that a network does not have are not used.

    Attributes:
        images: which terms compare images; see the module.
        edge, frequency, mask, reblur: factors of the terms of that name.
        variation: factor of the total variation of the motion.
        policy: factor of the REINFORCE term of SAPHN+.
    """

    images: Images = "charbonnier"
    edge: float = 0.05
    frequency: float = 0.1
    mask: float = 0.01
    reblur: float = 1.0
    variation: float = 2e-4
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
    flow = output.flow.float()
    return {
        **restoration(output.restored, batch, weights),
        "mask": weights.mask * losses.mask_cross_entropy(output.logits, batch.mask),
        "reblur": weights.reblur * reblur_loss(flow, batch.sharp, batch.blurred),
        "variation": weights.variation * motion_variation(flow),
    }


@terms.register
def _(output: algnet.TrainingOutput, batch: Batch, weights: Weights) -> Terms:
    """All four sizes have the same weight; each is compared with every s-th pixel of the sharp
    image."""
    pairs = zip(output, (8, 4, 2, 1), strict=True)
    return _sum([restoration(image, batch.every(step), weights) for image, step in pairs])


@terms.register
def _(output: saphn.TrainingOutput, batch: Batch, weights: Weights) -> Terms:
    """All three stages have the same weight; the samplers of SAPHN+ are trained with REINFORCE."""
    total = _sum([restoration(image, batch, weights) for image in output.outputs])
    if output.policy is None:
        return total
    return {**total, "policy": weights.policy * policy_loss(output, batch.sharp)}


def policy_loss(output: saphn.TrainingOutput, sharp: Tensor) -> Tensor:
    """The REINFORCE loss of SAPHN+, a scalar: each pixel's draws follow that pixel's reward.

    The sum over the pixels is divided by the largest number of points in an image. The baseline is
    the mean reward of the batch.

    Args:
        output: of the non-uniform network in training mode.
        sharp: ground truth [N, 3, H, W] in 0..1.
    """
    assert output.policy is not None, "only the non-uniform network draws"
    reward = saphn.reward(output, sharp).detach()
    height, width = sharp.shape[-2:]
    log_prob = output.policy.log_prob[..., :height, :width]  # padding has no reward
    gain = ((reward - reward.mean()) * log_prob).sum((1, 2, 3))
    return -gain.mean() / output.policy.budget


def restoration(restored: Tensor, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    """The image terms that `weights.images` names; `restored` is [N, 3, H, W]."""
    return IMAGE_TERMS[weights.images](restored.float(), batch, weights)


def _psnr(restored: Tensor, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    return {"psnr": losses.negative_psnr(restored, batch.sharp)}


def _l1_ssim(restored: Tensor, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    return {
        "l1": losses.l1(restored, batch.sharp),
        "ssim": losses.dissimilarity(restored, batch.sharp),
        "frequency": weights.frequency * losses.frequency(restored, batch.sharp),
    }


def _charbonnier(restored: Tensor, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    return {
        "charbonnier": losses.charbonnier(restored, batch.sharp),
        "edge": weights.edge * losses.edge(restored, batch.sharp),
        "frequency": weights.frequency * losses.frequency(restored, batch.sharp),
    }


def _relative(restored: Tensor, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    return {"relative": losses.relative_error(restored, batch.sharp, batch.blurred)}


IMAGE_TERMS: Mapping[Images, Callable[[Tensor, Batch, Weights], dict[str, Tensor]]] = {
    "psnr": _psnr,
    "l1-ssim": _l1_ssim,
    "charbonnier": _charbonnier,
    "relative": _relative,
}


def _sum(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sum the terms of the same name."""
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
