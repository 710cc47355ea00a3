"""Reblur loss: the sharp image, moved along the predicted motion and averaged, is the blurred one.

M2AENet (Shang et al. 2025, arXiv:2507.07708) supervises its motion analyzer with it: softmax
splatting (Niklaus and Liu 2020, arXiv:2003.05534, Eq. 4 to 6) along the nine displacements, mean
squared error. Chosen here, because the paper does not say: the loss works at a quarter of the
image size (the analyzer at an eighth), what moves further lies in front, and light is averaged
linearly, as a sensor does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MOMENTS = 9
SHRINK = 4  # the loss works at 1/4 of the image size
STEEPEST = 20.0  # bound of the importance, e^20
FAINTEST = 1e-3  # weight that counts as something having arrived


def reblur_loss(flow: Tensor, sharp: Tensor, blurred: Tensor) -> Tensor:
    """mean (reblurred - blurred)^2 at 1/4 of the size, the gradient goes to the flow only.

    Args:
        flow: [N, 4, h, w] displacement at the first and last moment, (x0, y0, x8, y8), in pixels
            of h x w.
        sharp, blurred: [N, 3, H, W] in 0..1, H and W multiples of h and w.
    """
    size = sharp.shape[-2] // SHRINK, sharp.shape[-1] // SHRINK
    scale = size[0] / flow.shape[-2]
    enlarged = F.interpolate(flow.float(), size, mode="bilinear", align_corners=False) * scale
    light = F.interpolate(to_light(sharp), size, mode="area")
    target = F.interpolate(to_light(blurred), size, mode="area")
    return F.mse_loss(to_code(reblur(light, enlarged)), to_code(target))


def reblur(light: Tensor, flow: Tensor) -> Tensor:
    """The mean of the image at the nine moments of the exposure.

    Args:
        light: [N, C, H, W] linear intensities at the middle of the exposure.
        flow: [N, 4, H, W] as in `reblur_loss`, in pixels of H x W.

    Returns:
        [N, C, H, W]. Where nothing arrives at a moment, that moment does not count.
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
    """[N, 4, H, W] -> [N, 2, H, W] (dx, dy) at moment n of 0..8: the parabola through the first
    moment, no displacement in the middle, and the last moment."""
    s = 2 * n / (MOMENTS - 1) - 1
    return (s * s - s) / 2 * flow[:, :2] + (s * s + s) / 2 * flow[:, 2:]


def splat(image: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Forward warping: every pixel is shared out to the four pixels around where it moves to.

    Args:
        image: [N, C, H, W]. flow: [N, 2, H, W] (dx, dy) in pixels. weight: [N, 1, H, W], positive.

    Returns:
        The sums of weight * image [N, C, H, W] and of the weight [N, 1, H, W] that arrive at each
        pixel; differentiable in image, weight and flow (except where the flow is whole).
    """
    n, channels, height, width = image.shape
    carried = torch.cat([image * weight, weight], dim=1).flatten(2)
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device).unsqueeze(1)
    left, top = x.detach().floor(), y.detach().floor()
    arrived = carried.new_zeros(n, channels + 1, height * width)
    for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            share = (share_x * share_y * inside).flatten(1).unsqueeze(1)
            index = place.long().flatten(1).unsqueeze(1).expand_as(carried)
            arrived = arrived.scatter_add(2, index, carried * share)
    arrived = arrived.view(n, channels + 1, height, width)
    return arrived[:, :-1], arrived[:, -1:]


def to_light(code: Tensor) -> Tensor:
    """sRGB values in 0..1 to linear intensities (IEC 61966-2-1)."""
    return torch.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def to_code(light: Tensor) -> Tensor:
    """Linear intensities to sRGB values; differentiable at 0."""
    power = light.clamp_min(0.0031308) ** (1 / 2.4)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * power - 0.055)
