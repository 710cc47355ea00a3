"""Losses on images, masks and motion: functions of float32 tensors that return a scalar.

Images are [N, 3, H, W] in 0..1. Smaller is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-3  # of the Charbonnier loss
PSNR_FLOOR = 1e-8  # added to the mean squared error: 80 dB at most
RELATIVE_FLOOR = 1e-3  # mean squared error of 30 dB
BINOMIAL = (0.05, 0.25, 0.4, 0.25, 0.05)  # Burt and Adelson 1983, a = 0.4
SSIM_SIZE = 11
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """L1 loss, mean |x - y|, of images [N, 3, H, W] in 0..1."""
    return (restored - sharp).abs().mean()


def charbonnier(restored: Tensor, sharp: Tensor) -> Tensor:
    """Charbonnier loss, mean sqrt((x - y)^2 + eps^2) with eps = 1e-3, of images [N, 3, H, W] in
    0..1 (Charbonnier et al. 1994). It is eps, not 0, if x = y."""
    return _charbonnier(restored - sharp)


def negative_psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """PSNR loss, the mean of 10 log10(MSE + 1e-8) in dB over images [N, 3, H, W] in 0..1: what
    NAFNet's official code trains with (`PSNRLoss`). It is -80, not 0, if x = y."""
    errors = (restored - sharp).square().mean(dim=(1, 2, 3))
    return 10 * (errors + PSNR_FLOOR).log10().mean()


def relative_error(restored: Tensor, sharp: Tensor, blurred: Tensor) -> Tensor:
    """Squared error relative to that of the input: mean of MSE / (MSE of the input + floor).

    Every image is weighted by the fraction of its error that remains, as in a mean of PSNR, however
    small its blur. The floor keeps images without blur, whose only error is noise, from outweighing
    the others.

    Args:
        restored, sharp, blurred: output, ground truth and input, [N, 3, H, W] in 0..1.
    """
    after, before = ((image - sharp).square().mean(dim=(1, 2, 3)) for image in (restored, blurred))
    return (after / (before + RELATIVE_FLOOR)).mean()


def edge(restored: Tensor, sharp: Tensor) -> Tensor:
    """Edge loss of images [N, 3, H, W] in 0..1: the Charbonnier loss of the finest level of the
    Laplacian pyramid (Burt and Adelson 1983; as a loss in MPRNet, Zamir et al. 2021, Eq. 3)."""
    return _charbonnier(laplacian(restored - sharp))  # linear: one pass for both images


def frequency(restored: Tensor, sharp: Tensor) -> Tensor:
    """L1 loss of the real and imaginary parts of the unnormalised half spectra of images
    [N, 3, H, W] in 0..1 (MIMO-UNet, Cho et al. 2021, Eq. 4)."""
    return torch.view_as_real(torch.fft.rfft2(restored - sharp)).abs().mean()


def dissimilarity(restored: Tensor, sharp: Tensor) -> Tensor:
    """1 - SSIM of images [N, 3, H, W] in 0..1 (Wang et al. 2004, Eq. 13).

    SSIM is computed per channel with a Gaussian window of 11 x 11 pixels and sigma 1.5, only for
    windows inside the image.

    Raises:
        ValueError: the images are smaller than the window.
    """
    if min(restored.shape[-2:]) < SSIM_SIZE:
        raise ValueError(f"SSIM needs images of at least {SSIM_SIZE} x {SSIM_SIZE} pixels")
    kernel = gaussian(SSIM_SIZE, SSIM_SIGMA)
    x, y = (image.flatten(0, 1).unsqueeze(1) for image in (restored, sharp))
    moments = smooth(torch.cat([x, y, x * x, y * y, x * y], dim=1), kernel)
    mean_x, mean_y, square_x, square_y, product = moments.unbind(1)
    cross, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance, variances = product - cross, square_x + square_y - squares
    ssim = (2 * cross + SSIM_C1) * (2 * covariance + SSIM_C2)
    return 1 - (ssim / ((squares + SSIM_C1) * (variances + SSIM_C2))).mean()


def mask_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of logits against the ground-truth mask.

    Args:
        logits: [N, 2, h, w]; channel 0 is the class "blurred".
        mask: ground truth [N, 1, H, W] in 0..1, reduced to h x w by `coarse_mask`.
    """
    blurred = coarse_mask(mask, logits.shape[-2:])
    return F.cross_entropy(logits.float(), 1 - blurred.squeeze(1).long())


def coarse_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Reduce a mask [N, 1, H, W] in 0..1 to a binary mask [N, 1, *size].

    A pixel of the result is 1 if the mean over the pixels that it covers is above 0.5.
    """
    return (F.adaptive_avg_pool2d(mask, (size[0], size[1])) > 0.5).to(mask.dtype)


def total_variation(field: Tensor) -> Tensor:
    """Anisotropic total variation of a field [N, C, H, W]: mean |d/dx| + mean |d/dy| of adjacent
    pixels (Rudin et al. 1992)."""
    across = (field[..., :, 1:] - field[..., :, :-1]).abs().mean()
    down = (field[..., 1:, :] - field[..., :-1, :]).abs().mean()
    return across + down


def laplacian(x: Tensor) -> Tensor:
    """The finest level of the Laplacian pyramid of x [N, C, H, W]: x - expand(reduce(x)).

    Borders are reflected, which preserves the pattern of zeros between the pixels of the reduced
    image.
    """
    kernel, border = torch.tensor(BINOMIAL), (len(BINOMIAL) // 2,) * 4
    planes = x.flatten(0, 1).unsqueeze(1)
    reduced = smooth(F.pad(planes, border, mode="reflect"), kernel)[..., ::2, ::2]
    expanded = torch.zeros_like(planes)
    expanded[..., ::2, ::2] = 4 * reduced
    return (planes - smooth(F.pad(expanded, border, mode="reflect"), kernel)).view_as(x)


def smooth(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter each channel of x [N, C, H, W] with `kernel` [k] along both axes, without padding."""
    channels, taps = x.shape[1], kernel.to(x)
    x = F.conv2d(x, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def gaussian(size: int, sigma: float) -> Tensor:
    """Weights [size] of a Gaussian with `sigma` in pixels, which sum to 1."""
    values = [math.exp(-(((i - size // 2) / sigma) ** 2) / 2) for i in range(size)]
    return torch.tensor([value / sum(values) for value in values])


def _charbonnier(difference: Tensor) -> Tensor:
    return (difference * difference + EPSILON**2).sqrt().mean()
