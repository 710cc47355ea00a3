from __future__ import annotations

import numpy as np
import pytest

from deblur_export.models.m2aenet import trajectory_matrix
from deblur_export.models.training.data.trajectory import (
    ObjectMotion,
    kernel,
    moments,
    random_motion,
    shake,
)


def test_nine_moments_are_m2aenets() -> None:
    """The network's parabola from first and last displacement is o(s) = a s + b s^2."""
    motion = ObjectMotion((4.0, -7.0), bend=(1.5, 2.5))
    ends = [motion.matrix(s)[:, 2] for s in (-1.0, 1.0)]
    taps = (trajectory_matrix().numpy() @ np.concatenate(ends)).reshape(9, 2)
    ours = [motion.matrix(2 * n / 8 - 1)[::-1, 2] for n in range(9)]
    np.testing.assert_allclose(taps, ours, atol=1e-12)


@pytest.mark.parametrize("extent", [3.0, 17.0, 41.0])
def test_motion_has_the_extent_asked_for(extent: float) -> None:
    for seed in range(20):
        motion = random_motion(np.random.default_rng(seed), extent, (50.0, 60.0), radius=40.0)
        assert motion.extent == pytest.approx(extent)
        path = motion.displacement() @ (50.0, 60.0, 1.0)
        assert np.linalg.norm(path) == pytest.approx(extent)
        np.testing.assert_allclose(motion.matrix(0.0), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_no_part_of_a_turning_object_rests() -> None:
    angles = np.linspace(0, 2 * np.pi, 24)
    rim = np.stack([40 * np.cos(angles), 40 * np.sin(angles), np.ones_like(angles)])
    for seed in range(50):
        motion = random_motion(np.random.default_rng(seed), 3.0, (0.0, 0.0), radius=40.0)
        assert np.linalg.norm(motion.displacement() @ rim, axis=0).min() > 1.0


def test_shake_has_its_extent_and_mean() -> None:
    paths = [shake(np.random.default_rng(seed), 20.0) for seed in range(10)]
    for path in paths:
        distances = np.linalg.norm(path[:, None] - path[None], axis=-1)
        assert distances.max() == pytest.approx(20.0)
        np.testing.assert_allclose(path.mean(0), 0, atol=1e-9)
        assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 1.5, "the spline must not jump"
    assert not np.allclose(paths[0][:40], paths[1][:40])


def test_kernel_is_where_the_light_goes() -> None:
    weights = kernel(np.array([[2.0, 0.0], [0.0, -1.5]]))
    centre = len(weights) // 2
    assert weights.sum() == pytest.approx(1.0)
    assert weights[centre, centre + 2] == pytest.approx(0.5)
    np.testing.assert_allclose(weights[centre - 2 : centre, centre], 0.25)


def test_moments_are_middles() -> None:
    np.testing.assert_allclose(moments(4), [-0.75, -0.25, 0.25, 0.75])
