"""The reblur loss on blur from a known motion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.models.m2aenet import trajectory_matrix
from deblur_export.models.training.reblur import (
    displacement,
    motion_variation,
    reblur,
    reblur_loss,
    splat,
    to_code,
    to_light,
)

STEP = 8  # displacement between two moments in pixels of the image; 1 at the size of the loss


def scene(size: int = 256) -> tuple[Tensor, Tensor]:
    """A random image and its blur by constant motion to the right.

    They consist of blocks of 8 x 8 pixels, so that both are exact at the size of the loss.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, size // 8, size // 8, generator=generator)
    light = F.avg_pool2d(F.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3, 1)
    light = light.repeat_interleave(8, 2).repeat_interleave(8, 3)
    moved = [light.roll(STEP * (n - 4), dims=3) for n in range(9)]
    return to_code(light), to_code(torch.stack(moved).mean(0))


def steady(dx: float, dy: float, size: int = 32) -> Tensor:
    """The same motion everywhere, from (-dx, -dy) to (dx, dy) in pixels at 1/8 of the size."""
    return (
        torch.tensor([-dx, -dy, dx, dy], dtype=torch.float32)
        .view(1, 4, 1, 1)
        .expand(1, 4, size, size)
    )


def test_loss_is_zero_for_the_true_motion_and_larger_for_others() -> None:
    sharp, blurred = scene()
    inside = slice(5, -5)  # content that leaves on one side does not reappear on the other
    reach = 4 * STEP / 8
    light, target = (F.avg_pool2d(to_light(image), 8) for image in (sharp, blurred))

    def error(flow: Tensor) -> float:
        difference = to_code(reblur(light, flow)) - to_code(target)
        return difference[..., inside].square().mean().item()

    true = error(steady(reach, 0))
    assert true < 1e-9
    for wrong in (steady(0, 0), steady(reach / 2, 0), steady(2 * reach, 0), steady(0, reach)):
        assert error(wrong) > 1e-4
    whole = reblur_loss(steady(reach, 0), sharp, blurred).item()
    assert whole < 0.5 * reblur_loss(steady(0, 0), sharp, blurred).item()


def by_hand(flow: np.ndarray, sharp: np.ndarray, blurred: np.ndarray) -> float:
    """The reblur loss of one image at the resolution of the flow (Sec. 3.4.3), pixel by pixel."""

    def light(code: np.ndarray) -> np.ndarray:
        return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)

    def code(light: np.ndarray) -> np.ndarray:
        return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)

    _, h, w = flow.shape
    step = sharp.shape[1] // h
    reduced = [light(x).reshape(3, h, step, w, step).mean((2, 4)) for x in (sharp, blurred)]
    total, moments = np.zeros((3, h, w)), np.zeros((h, w))
    for n in range(9):
        s = 2 * n / 8 - 1
        values, weights = np.zeros((3, h, w)), np.zeros((h, w))
        for y in range(h):
            for x in range(w):
                first, last = flow[:2, y, x], flow[2:, y, x]
                dx, dy = (first + last) / 2 * s**2 + (last - first) / 2 * s
                front = math.exp(min(math.hypot(*(last - first)), 20))
                for row in range(h):
                    for column in range(w):
                        near = (1 - abs(row - y - dy)) * (1 - abs(column - x - dx))
                        if abs(row - y - dy) < 1 and abs(column - x - dx) < 1:
                            values[:, row, column] += front * near * reduced[0][:, y, x]
                            weights[row, column] += front * near
        seen = weights > 1e-3
        total[:, seen] += values[:, seen] / weights[seen]
        moments += seen
    again = np.where(moments > 0, total / np.maximum(moments, 1), reduced[0])
    return float(((code(again) - code(reduced[1])) ** 2).mean())


def test_loss_is_that_of_the_paper_at_the_resolution_of_the_flow() -> None:
    generator = torch.Generator().manual_seed(2)
    sharp, blurred = (
        torch.rand(1, 3, 32, 40, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    flow = 3 * torch.rand(1, 4, 4, 5, generator=generator, dtype=torch.float64) - 1.5
    expected = by_hand(flow[0].numpy(), sharp[0].numpy(), blurred[0].numpy())
    assert reblur_loss(flow, sharp, blurred).item() == pytest.approx(expected, rel=1e-10)


def test_total_variation_is_the_sum_over_nine_moments() -> None:
    """Eq. 10 of M2AENet, in float64."""
    flow = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first, last = flow.numpy()[:, :2], flow.numpy()[:, 2:]
    expected = 0.0
    for n in range(9):
        s = 2 * n / 8 - 1
        moved = (first + last) / 2 * s**2 + (last - first) / 2 * s
        expected += np.abs(np.diff(moved, axis=3)).mean() + np.abs(np.diff(moved, axis=2)).mean()
    assert motion_variation(flow).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_leads_towards_the_true_motion() -> None:
    sharp, blurred = scene()
    flow = steady(2.4, 0).clone().requires_grad_()
    reblur_loss(flow, sharp, blurred).backward()  # type: ignore[no-untyped-call]
    assert flow.grad is not None
    mean = flow.grad.mean((0, 2, 3))
    assert mean[0] > 0 > mean[2]  # descending stretches the motion


def test_displacement_is_the_parabola_of_the_network() -> None:
    flow = torch.randn(1, 4, 3, 5)
    offsets = F.conv2d(flow, trajectory_matrix().float().view(18, 4, 1, 1)).view(1, 9, 2, 3, 5)
    for n in range(9):
        torch.testing.assert_close(displacement(flow, n), offsets[:, n].flip(1))


def test_splat_is_differentiable_in_all_inputs() -> None:
    generator = torch.Generator().manual_seed(1)
    image, flow = (
        torch.rand(2, 2, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    flow = 2.7 * flow - 1.3
    weight = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64) + 0.5
    inputs = [x.requires_grad_() for x in (image, flow, weight)]
    assert torch.autograd.gradcheck(splat, inputs)


def test_splat_distributes_a_pixel_over_four_neighbours() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[..., 0, 0] = 1
    flow = torch.tensor([1.25, 0.5]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    values, _ = splat(image, flow, torch.ones(1, 1, 3, 3))
    expected = torch.tensor([[0, 0.375, 0.125], [0, 0.375, 0.125], [0, 0, 0]])
    torch.testing.assert_close(values[0, 0], expected)


def test_moving_pixels_occlude_static_ones() -> None:
    light = torch.zeros(1, 1, 1, 12)
    light[..., 2] = 1
    flow = torch.zeros(1, 4, 1, 12)
    flow[:, 0, :, 2], flow[:, 2, :, 2] = -2, 6  # at s = 1 it is at 8
    again = reblur(light, flow)
    assert again[..., 8].item() == pytest.approx(1 / 9, rel=0.02)  # the static pixel 8 is occluded
    assert again[..., 10].item() == 0


def test_a_moment_without_contribution_is_left_out() -> None:
    light = torch.full((1, 1, 6, 6), 0.5)
    flow = torch.zeros(1, 4, 6, 6)
    flow[:, 0], flow[:, 2] = -4, 4  # uncovers the sides
    torch.testing.assert_close(reblur(light, flow), light)


@pytest.mark.parametrize("level", [0.0, 0.002, 0.2, 1.0])
def test_encoding_has_an_inverse_and_a_finite_slope(level: float) -> None:
    light = torch.tensor([level], requires_grad=True)
    torch.testing.assert_close(to_light(to_code(light)), light, atol=2e-6, rtol=1e-5)
    (slope,) = torch.autograd.grad(to_code(light).sum(), light)
    assert 0 < slope.item() < 13
