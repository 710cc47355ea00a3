"""Evaluate a network on images of a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from deblur_export.models.m2aenet import M2AENet
from deblur_export.models.training.data.dataset import Batch
from deblur_export.models.training.losses import coarse_mask

LOWEST = 1e-6  # mean squared error of 60 dB, the largest PSNR that is reported


@torch.no_grad()
def evaluate(net: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
    """Compute the mean scores of a network in eval mode.

    Args:
        net: the network, on `device`.
        batches: pairs; their masks are the ground truth.
        device: where to run.

    Returns:
        Scores by name, in dB: `psnr` and `psnr_w` over the images with blurred pixels, where
        `psnr_w` weights pixels by the mask; `psnr_sharp` over the other images; the same of the
        input as `blurred_psnr` and so on. For M2AENet also `mask_iou`, the intersection over union
        of the masks at an eighth of the size. Scores without images are left out. PSNR is at most
        60 dB per image.
    """
    seen = MaskRecorder(net)
    scores: dict[str, list[Tensor]] = {}
    union = intersection = 0.0
    try:
        for batch in (batch.to(device) for batch in batches):
            for prefix, image in (("", net(batch.blurred)), ("blurred_", batch.blurred)):
                for name, values in image_scores(image, batch).items():
                    scores.setdefault(prefix + name, []).append(values)
            if seen.mask is not None:
                found, true = seen.mask > 0, coarse_mask(batch.mask, seen.mask.shape[-2:]) > 0
                intersection += float((found & true).sum())
                union += float((found | true).sum())
    finally:
        seen.remove()
    means = {name: torch.cat(values) for name, values in scores.items()}
    result = {name: float(values.mean()) for name, values in means.items() if len(values)}
    return {**result, "mask_iou": intersection / union} if union else result


def image_scores(image: Tensor, batch: Batch) -> dict[str, Tensor]:
    """PSNR in dB of each image of a batch.

    Args:
        image: [N, 3, H, W], clipped to 0..1.
        batch: ground truth of the same size.

    Returns:
        Vectors by name, as in `evaluate`; each has one entry per image that the score applies to.
    """
    error = (image.float().clamp(0, 1) - batch.sharp).square().mean(dim=1, keepdim=True)
    weight = batch.mask.sum(dim=(1, 2, 3))
    whole = decibels(error.mean(dim=(1, 2, 3)))
    inside = decibels((error * batch.mask).sum(dim=(1, 2, 3)) / weight.clamp_min(1e-6))
    blurred = weight > 0
    return {"psnr": whole[blurred], "psnr_w": inside[blurred], "psnr_sharp": whole[~blurred]}


def decibels(error: Tensor) -> Tensor:
    """Convert the mean squared error of images in 0..1 to PSNR in dB."""
    return -10 * error.clamp_min(LOWEST).log10()


class MaskRecorder:
    """Records the binary mask [N, 1, h, w] of an M2AENet; None for other networks."""

    def __init__(self, net: nn.Module) -> None:
        self.mask: Tensor | None = None
        self.hook = net.mask.register_forward_hook(self.note) if isinstance(net, M2AENet) else None

    def note(self, module: nn.Module, arguments: Any, mask: Tensor) -> None:
        self.mask = mask

    def remove(self) -> None:
        """Remove the hook from the network."""
        if self.hook is not None:
            self.hook.remove()
