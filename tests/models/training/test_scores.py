"""Scores compared with their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.models.m2aenet import M2AENet
from deblur_export.models.training.data.dataset import Batch
from deblur_export.models.training.losses import coarse_mask
from deblur_export.models.training.scores import evaluate, image_scores

CPU = torch.device("cpu")


def batch(count: int = 2, size: int = 32) -> Batch:
    """A batch whose first image is blurred in its left half; the others are sharp."""
    torch.manual_seed(0)
    sharp = 0.2 + 0.6 * torch.rand(count, 3, size, size)
    mask = torch.zeros(count, 1, size, size)
    mask[0, :, :, : size // 2] = 1
    return Batch(sharp + 0.1 * mask, sharp, mask, torch.zeros(count, 2, size, size))


def test_psnr_inside_and_outside() -> None:
    pairs = batch()
    image = pairs.sharp.clone()
    image[0, :, :, :16] += 0.1
    image[0, :, :, 16:] += 0.01
    image[1] += 0.02
    scores = image_scores(image, pairs)
    assert scores["psnr"].tolist() == pytest.approx([-10 * math.log10((1e-2 + 1e-4) / 2)], rel=1e-4)
    assert scores["psnr_w"].tolist() == pytest.approx([20], rel=1e-4)
    assert scores["psnr_sharp"].tolist() == pytest.approx([-20 * math.log10(0.02)], rel=1e-4)


def test_soft_masks_are_weights_and_values_are_clipped() -> None:
    mask = torch.tensor([[[[1.0, 0.25]]]])
    sharp = torch.full((1, 3, 1, 2), 0.9)
    image = torch.tensor([1.3, 0.7]).expand(1, 3, 1, 2)  # errors 0.1 once clipped, and 0.2
    scores = image_scores(image, Batch(image, sharp, mask, image[:, :2]))
    expected = -10 * math.log10((0.01 + 0.25 * 0.04) / 1.25)
    assert scores["psnr_w"].item() == pytest.approx(expected, rel=1e-5)


def test_a_perfect_image_has_60_db() -> None:
    scores = evaluate(
        nn.Identity(), [Batch(*[batch().sharp] * 2, batch().mask, batch().motion)], CPU
    )
    assert scores["psnr"] == scores["psnr_w"] == scores["psnr_sharp"] == pytest.approx(60)


def test_mean_is_over_images_not_batches() -> None:
    both = batch(3)
    parts = [
        Batch(*(x[i:j] for x in (both.blurred, both.sharp, both.mask, both.motion)))
        for i, j in ((0, 1), (1, 3))
    ]
    whole = evaluate(nn.Identity(), [both], CPU)
    assert evaluate(nn.Identity(), parts, CPU) == pytest.approx(whole)
    assert whole["psnr"] == whole["blurred_psnr"]
    assert "mask_iou" not in whole


class FixedMask(nn.Module):
    """Replaces the threshold of an M2AENet."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.found = mask

    def forward(self, scores: Tensor) -> Tensor:
        return self.found


def test_mask_iou() -> None:
    spec, pairs = models.get("m2aenet"), batch()
    net = spec.build(**spec.variants["tiny"]).eval()
    assert isinstance(net, M2AENet)
    true = coarse_mask(pairs.mask, (4, 4))  # 8 of 16 cells of the first image
    found = true.clone()
    found[0, :, 0] = 1 - found[0, :, 0]  # two false negatives, two false positives
    net.mask = FixedMask(found)
    assert evaluate(net, [pairs], CPU)["mask_iou"] == pytest.approx(6 / 10)
    assert not net.mask._forward_hooks
