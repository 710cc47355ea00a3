"""Reblur loss: the sharp image, warped along the predicted motion and averaged, must equal the
blurred one.

M2AENet (Shang et al. 2025, arXiv:2507.07708, Sec. 3.4.3) supervises its motion analyzer with it:
softmax splatting (Niklaus and Liu 2020, arXiv:2003.05534, Eq. 4 to 6) along the nine displacements,
and mean squared error, at the resolution of the scale that the analyzer works at. The paper does
not specify the following, which is chosen here: images are reduced to that scale by averaging,
pixels that move further are in front, and light is averaged linearly, as by a sensor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.models.training.losses import total_variation

MOMENTS = 9
STEEPEST = 20.0  # upper bound of the exponent of the importance weight
FAINTEST = 1e-3  # smallest total weight of a pixel that counts as visible


def reblur_loss(flow: Tensor, sharp: Tensor, blurred: Tensor) -> Tensor:
    """Reblur loss, mean (reblurred - blurred)^2 at the size of the flow. Only the flow receives a
    gradient.

    Args:
        flow: [N, 4, h, w], displacements (x0, y0, x8, y8) at the first and last of the nine
            moments, in pixels of the h x w grid.
        sharp, blurred: [N, 3, H, W] in 0..1, sRGB-encoded; H and W are multiples of h and w.
    """
    size = flow.shape[-2:]
    light, target = (F.interpolate(to_light(x), size, mode="area") for x in (sharp, blurred))
    return F.mse_loss(to_code(reblur(light, flow)), to_code(target))


def motion_variation(flow: Tensor) -> Tensor:
    """The total variation of the motion, summed over the nine moments of the exposure (M2AENet,
    Eq. 10).

    Args:
        flow: [N, 4, h, w] as in `reblur_loss`.
    """
    moments = [total_variation(displacement(flow, n)) for n in range(MOMENTS)]
    return torch.stack(moments).sum()


def reblur(light: Tensor, flow: Tensor) -> Tensor:
    """The mean of the image over the nine moments of the exposure.

    Args:
        light: [N, C, H, W], linear intensities at the middle of the exposure.
        flow: [N, 4, H, W] as in `reblur_loss`, in pixels of the H x W grid.

    Returns:
        [N, C, H, W], linear intensities. A moment at which nothing is splatted to a pixel is left
        out of that pixel's mean.
    """
    speed = (flow[:, 2:] - flow[:, :2]).detach().norm(dim=1, keepdim=True)
    weight = speed.clamp(max=STEEPEST).exp()
    total, seen = torch.zeros_like(light), torch.zeros_like(weight)
    for n in range(MOMENTS):
        values, arrived = splat(light, displacement(flow, n), weight)
        visible = (arrived > FAINTEST).to(light.dtype)
        total = total + visible * values / arrived.clamp_min(FAINTEST)
        seen = seen + visible
    return torch.where(seen > 0, total / seen.clamp_min(1), light)


def displacement(flow: Tensor, n: int) -> Tensor:
    """Displacement [N, 2, H, W], (dx, dy) in pixels, at moment n of 0..8.

    It lies on the parabola through the displacements of the first and the last moment, which
    `flow` [N, 4, H, W] gives, and zero displacement at the middle.
    """
    s = 2 * n / (MOMENTS - 1) - 1
    return (s * s - s) / 2 * flow[:, :2] + (s * s + s) / 2 * flow[:, 2:]


def splat(image: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Warp forward: every pixel is distributed bilinearly over the four pixels around its target.

    Args:
        image: [N, C, H, W].
        flow: [N, 2, H, W], displacement (dx, dy) in pixels.
        weight: [N, 1, H, W], positive.

    Returns:
        The sums of weight * image, [N, C, H, W], and of weight, [N, 1, H, W], that are splatted to
        each pixel. They are differentiable in image, weight and flow (the flow except at integers).
    """
    n, channels, height, width = image.shape
    sources = torch.cat([image * weight, weight], dim=1).flatten(2)
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device).unsqueeze(1)
    left, top = x.detach().floor(), y.detach().floor()
    sums = sources.new_zeros(n, channels + 1, height * width)
    for column, fraction_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, fraction_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            position = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            fraction = (fraction_x * fraction_y * inside).flatten(1).unsqueeze(1)
            index = position.long().flatten(1).unsqueeze(1).expand_as(sources)
            sums = sums.scatter_add(2, index, sources * fraction)
    sums = sums.view(n, channels + 1, height, width)
    return sums[:, :-1], sums[:, -1:]


def to_light(code: Tensor) -> Tensor:
    """Convert sRGB-encoded values in 0..1 to linear intensities in 0..1 (IEC 61966-2-1)."""
    return torch.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def to_code(light: Tensor) -> Tensor:
    """Convert linear intensities in 0..1 to sRGB-encoded values; the gradient at 0 is finite."""
    power = light.clamp_min(0.0031308) ** (1 / 2.4)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * power - 0.055)
