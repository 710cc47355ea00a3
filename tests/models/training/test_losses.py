"""Each loss against a second implementation of its formula with numpy or scikit-image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.models.training import losses

Loss = Callable[[Tensor, Tensor], Tensor]
PERFECT = {
    "l1": 0.0,
    "charbonnier": 1e-3,
    "negative_psnr": -80.0,
    "edge": 1e-3,
    "frequency": 0.0,
    "dissimilarity": 0.0,
}


def images(seed: int = 0, size: tuple[int, ...] = (2, 3, 18, 22)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(size, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, y


@pytest.mark.parametrize(("name", "value"), PERFECT.items())
def test_value_of_a_perfect_image(name: str, value: float) -> None:
    x, _ = images()
    assert getattr(losses, name)(x, x.clone()).item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", PERFECT)
def test_gradients(name: str) -> None:
    x, y = images(size=(1, 2, 12, 12))
    loss: Loss = getattr(losses, name)
    assert torch.autograd.gradcheck(lambda image: loss(image, y), x.requires_grad_())


def test_charbonnier() -> None:
    x, y = images()
    expected = np.sqrt((x - y).numpy() ** 2 + 1e-6).mean()
    assert losses.charbonnier(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_psnr_loss_is_that_of_nafnets_official_code() -> None:
    """10 / ln 10 times the mean over the images of ln(MSE + 1e-8), in its class PSNRLoss."""
    x, y = images()
    errors = [np.mean((a - b) ** 2) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    expected = 10 / np.log(10) * np.mean(np.log(np.array(errors) + 1e-8))
    assert losses.negative_psnr(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_relative_error_counts_each_image_by_its_own_blur() -> None:
    sharp = torch.zeros(2, 3, 4, 4)
    blurred = sharp + torch.tensor([0.2, 0.0]).view(2, 1, 1, 1)  # squared: 0.04, and no blur
    restored = sharp + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    expected = (0.01 / (0.04 + 1e-3) + 1e-4 / 1e-3) / 2
    assert losses.relative_error(restored, sharp, blurred).item() == pytest.approx(expected)


def test_frequency_is_not_normalised() -> None:
    x, y = images()
    spectrum = np.fft.rfft2((x - y).numpy())
    expected = (np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2
    assert losses.frequency(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_dissimilarity_is_one_minus_ssim() -> None:
    from skimage.metrics import structural_similarity  # imports SciPy, which takes a while

    x, y = images()
    y = x + 0.3 * (y - 0.5)
    expected = []
    for a, b in zip(x.numpy(), y.numpy(), strict=True):
        _, ssim = structural_similarity(
            a,
            b,
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        expected.append(ssim[:, 5:-5, 5:-5].mean())
    assert losses.dissimilarity(x, y).item() == pytest.approx(1 - np.mean(expected), abs=1e-7)


def test_dissimilarity_refuses_images_smaller_than_its_window() -> None:
    x, y = images(size=(1, 3, 10, 20))
    with pytest.raises(ValueError, match="11 x 11"):
        losses.dissimilarity(x, y)


def test_edge_is_the_laplacian_pyramid() -> None:
    """Reduce and expand as Burt and Adelson write them, pixel by pixel, away from the border."""
    x, _ = images(size=(1, 1, 16, 16))
    weights = np.outer(losses.BINOMIAL, losses.BINOMIAL)
    image = x[0, 0].numpy()
    expanded = np.zeros((16, 16))
    for i in range(6, 10):
        for j in range(6, 10):
            for m in range(-2, 3):
                for n in range(-2, 3):
                    if (i - m) % 2 == 0 and (j - n) % 2 == 0:
                        window = image[i - m - 2 : i - m + 3, j - n - 2 : j - n + 3]
                        reduced = (weights * window).sum()
                        expanded[i, j] += 4 * weights[m + 2, n + 2] * reduced
    detail = losses.laplacian(x)[0, 0].numpy()
    centre = np.s_[6:10, 6:10]
    np.testing.assert_allclose(detail[centre], (image - expanded)[centre], atol=1e-7)


def test_edge_ignores_a_shift_in_brightness() -> None:
    x, _ = images()
    assert losses.edge(x + 0.3, x).item() == pytest.approx(1e-3, abs=1e-6)


def test_mask_cross_entropy_expects_class_0_for_blurred_pixels() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    mask[..., 8:, 8:12] = 1  # exactly half of a cell: sharp
    logits = torch.tensor([[[[2.0, -3], [1, -1]], [[0.0, 0], [0, 0]]]])
    blurred = torch.tensor([[[[1.0, 0], [1, 0]]]])
    assert torch.equal(losses.coarse_mask(mask, (2, 2)), blurred)
    margin = torch.tensor([2.0, 3, 1, 1])  # of the right channel
    expected = F.softplus(-margin).mean()
    assert losses.mask_cross_entropy(logits, mask).item() == pytest.approx(expected.item())


def test_total_variation() -> None:
    field = torch.tensor([[[[0.0, 1, 3], [0, 1, 3]]]])
    assert losses.total_variation(field).item() == pytest.approx(1.5)
    assert losses.total_variation(field.mT).item() == pytest.approx(1.5)
