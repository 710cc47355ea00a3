"""Scenes whose exposure can be worked out by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deblur_export.models.training.data import light
from deblur_export.models.training.data.exposure import (
    MARGIN,
    SEEN,
    Image,
    Layer,
    expose,
    patch,
    shaken,
)
from deblur_export.models.training.data.trajectory import ObjectMotion

SIZE = 128


@pytest.fixture
def scene(photo: NDArray[np.uint8]) -> Image:
    """Linear light, [SIZE + 2 MARGIN, SIZE + 2 MARGIN, 3]."""
    return light.decode(photo[: SIZE + 2 * MARGIN, : SIZE + 2 * MARGIN])


def full_frame(scene: Image, motion: ObjectMotion) -> Layer:
    """The whole scene as one layer."""
    return Layer(np.dstack([scene, np.ones_like(scene[..., :1])]), -MARGIN, -MARGIN, motion)


def square(colour: float, motion: ObjectMotion, side: int = 40, at: int = 44) -> Layer:
    pixels = np.full((side, side, 4), colour, np.float32)
    pixels[..., 3] = 1.0
    return Layer(pixels, at, at, motion)


def black() -> Image:
    return np.zeros((SIZE, SIZE, 3), np.float32)


def test_edge_is_averaged_in_linear_light() -> None:
    """A white edge passes a pixel at half time: half the light, which sRGB encodes as 0.735."""
    pair = expose(black(), [square(1.0, ObjectMotion((10.0, 0.0)))], count=20)
    row = pair.blurred[64, :, 0]
    assert row[84] == pytest.approx(0.735, abs=0.04)
    light_row = light.to_linear(row)
    # The right edge at 84 goes from 74 to 94; pixel p is lit until the edge is left of it.
    expected = (94 - (np.arange(76, 93) + 0.5)) / 20
    np.testing.assert_allclose(light_row[76:93], expected, atol=0.03)


def test_light_is_kept() -> None:
    """What the square gives away at one side arrives at the other."""
    layer = square(0.5, ObjectMotion((6.0, -4.0), bend=(1.0, 3.0), rotation=0.02))
    pair = expose(black(), [layer])
    total = light.to_linear(pair.blurred).sum()
    assert total == pytest.approx(light.to_linear(pair.sharp).sum(), rel=2e-3)


@pytest.mark.parametrize("linear", [(8.0, 0.0), (-3.0, 5.0)])
def test_full_frame_is_the_sharp_frame_reblurred(scene: Image, linear: tuple[float, float]) -> None:
    motion = ObjectMotion(linear)
    pair = expose(patch(scene), [full_frame(scene, motion)], count=200)
    steps = np.linspace(-1, 1, 2001)
    again = np.zeros_like(scene)
    for s in steps[5::50]:
        shift = np.array([[1, 0, s * linear[0]], [0, 1, s * linear[1]]])
        again += cv2.warpAffine(scene, shift, scene.shape[1::-1])
    expected = light.to_srgb(patch(again / len(steps[5::50])))
    assert np.abs(pair.blurred - expected).max() < 0.01
    assert np.abs(pair.blurred - pair.sharp).mean() > 0.02
    np.testing.assert_allclose(pair.motion, np.broadcast_to(np.multiply(linear, 2), (128, 128, 2)))
    np.testing.assert_allclose(pair.sharp, light.to_srgb(patch(scene)), atol=1e-6)


@pytest.mark.parametrize("linear", [(8.0, 0.0), (-3.0, 5.0)])
def test_object_and_camera_agree(scene: Image, linear: tuple[float, float]) -> None:
    """A scene that moves along a path before a still camera, by warping and by convolution."""
    path = np.linspace(-1, 1, 400)[:, None] * np.array(linear)
    camera = shaken(scene, path)
    warped = expose(patch(scene), [full_frame(scene, ObjectMotion(linear))], count=200)
    assert np.abs(camera.blurred - warped.blurred).max() < 0.01
    np.testing.assert_allclose(camera.motion, warped.motion, atol=1e-5)
    assert camera.mask.min() == 1.0


def test_asymmetric_shake_keeps_its_direction() -> None:
    """A point of light draws the path itself, not its mirror image."""
    scene = np.zeros((SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 3), np.float32)
    scene[MARGIN + 64, MARGIN + 64] = 1.0
    path = np.array([[0.0, 0.0], [6.0, 0.0], [6.0, 3.0]])
    seen = light.to_linear(shaken(scene, path).blurred)[..., 0]
    assert {(int(y), int(x)) for y, x in np.argwhere(seen > 0.1)} == {(64, 64), (64, 70), (67, 70)}


def test_no_motion_gives_the_sharp_image(scene: Image) -> None:
    pair = expose(patch(scene), [square(0.3, ObjectMotion((0.0, 0.0)))])
    np.testing.assert_allclose(pair.blurred, pair.sharp, atol=1e-6)
    nothing = expose(patch(scene), [])
    np.testing.assert_array_equal(nothing.blurred, nothing.sharp)
    assert not nothing.mask.any() and not nothing.motion.any()


def test_mask_is_the_share_of_the_exposure() -> None:
    """A square of 40 that moves by 20 covers 44..84 in the middle, 34..94 in all."""
    pair = expose(black(), [square(1.0, ObjectMotion((10.0, 0.0)))], count=100)
    row = pair.mask[64]
    assert row[54:74].min() == 1.0
    assert not row[:33].any() and not row[95:].any()
    assert row[93] == pytest.approx(0.5 * (94 - 93) / 20 / SEEN, abs=0.08)
    assert np.array_equal(pair.mask > 0, (pair.motion != 0).any(axis=2))


def test_front_layer_hides_and_gives_the_motion() -> None:
    back = square(1.0, ObjectMotion((0.0, 5.0)))
    front = square(0.25, ObjectMotion((5.0, 0.0)), side=20, at=54)
    pair = expose(black(), [back, front])
    assert light.to_linear(pair.sharp[64:65, 64, :1]).item() == pytest.approx(0.25, abs=1e-4)
    np.testing.assert_allclose(pair.motion[64, 64], (10.0, 0.0))
    np.testing.assert_allclose(pair.motion[48, 48], (0.0, 10.0))
    # Uncovered for part of the exposure: between the front's and the back's light.
    assert 0.26 < light.to_linear(pair.blurred[64:65, 56, :1]).item() < 0.99


def test_turning_object_has_motion_at_each_pixel() -> None:
    layer = square(1.0, ObjectMotion((0.0, 0.0), rotation=0.05, centre=(64.0, 64.0)))
    motion = expose(black(), [layer]).motion
    np.testing.assert_allclose(motion[64, 80], (0.0, 2 * 16 * np.sin(0.05)), atol=1e-3)
    np.testing.assert_allclose(motion[50, 64], (2 * 14 * np.sin(0.05), 0.0), atol=1e-3)


def test_object_outside_the_patch() -> None:
    pair = expose(black(), [square(1.0, ObjectMotion((3.0, 0.0)), at=300)])
    assert not pair.mask.any() and not pair.blurred.any()
