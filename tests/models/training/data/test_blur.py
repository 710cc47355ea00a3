from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data import blur, light
from deblur_export.models.training.data.blur import KINDS, Kind, synthesize
from deblur_export.models.training.data.crop import gradient, random_crop
from deblur_export.models.training.data.exposure import MARGIN
from deblur_export.models.training.data.shapes import random_shape
from tests.models.training.data.conftest import textured

SIZE = (96, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_pair(photo: NDArray[np.uint8], kind: Kind) -> None:
    first, second = (synthesize(photo, (7, 1), SIZE, kind) for _ in range(2))
    other = synthesize(photo, (7, 2), SIZE, kind)
    for name in ("blurred", "sharp", "mask", "motion"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.sharp, other.sharp)


@pytest.mark.parametrize("seed", range(8))
def test_local_pair_is_consistent(photo: NDArray[np.uint8], seed: int) -> None:
    pair = synthesize(photo, seed, SIZE, "local")
    assert pair.blurred.shape == pair.sharp.shape == (*SIZE, 3)
    assert pair.mask.shape == SIZE and pair.motion.shape == (*SIZE, 2)
    for image in (pair.blurred, pair.sharp, pair.mask):
        assert image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
    inside, outside = pair.mask == 1, pair.mask == 0
    error = np.sqrt(((pair.blurred - pair.sharp) ** 2).mean(axis=2))
    assert 0.03 < inside.mean() < 0.75
    assert error[inside].mean() > 2 * error[outside].mean()
    assert not pair.motion[outside].any()
    length = np.linalg.norm(pair.motion[inside], axis=-1)
    assert length.min() > 0.5 and length.max() < 41 * 1.6


def test_outside_the_mask_only_the_camera_changes_pixels(
    photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blur, "_photographed", lambda image, rng: image)
    for seed in range(5):
        pair = synthesize(photo, seed, SIZE, "local")
        np.testing.assert_array_equal(pair.blurred[pair.mask == 0], pair.sharp[pair.mask == 0])
    still = synthesize(photo, 0, SIZE, "sharp")
    np.testing.assert_array_equal(still.blurred, still.sharp)


def test_noise_and_jpeg_are_mild(photo: NDArray[np.uint8]) -> None:
    errors = []
    for seed in range(16):
        pair = synthesize(photo, seed, SIZE, "sharp")
        assert not pair.mask.any() and not pair.motion.any()
        errors.append(float(np.sqrt(((pair.blurred - pair.sharp) ** 2).mean())))
    assert min(errors) == 0.0, "a quarter goes unchanged"
    assert 0.001 < max(errors) < 0.06


def test_global_pair(photo: NDArray[np.uint8]) -> None:
    pair = synthesize(photo, 3, SIZE, "global")
    assert pair.mask.min() == 1.0
    assert np.ptp(pair.motion.reshape(-1, 2), axis=0).max() == 0
    assert np.abs(pair.blurred - pair.sharp).mean() > 0.01


def test_kinds_are_drawn_as_stated(photo: NDArray[np.uint8]) -> None:
    assert sum(KINDS.values()) == pytest.approx(1.0)
    counts = dict.fromkeys(KINDS, 0)
    for seed in range(120):
        mask = synthesize(photo, seed, (64, 64)).mask
        counts["sharp" if not mask.any() else "global" if mask.min() == 1 else "local"] += 1
    for kind, share in KINDS.items():
        assert counts[kind] / 120 == pytest.approx(share, abs=0.12)


@pytest.mark.parametrize(
    ("pixels", "kind", "message"),
    [
        (np.zeros((80, 200, 3), np.uint8), None, "200x80"),
        (np.zeros((200, 200), np.uint8), None, "must be uint8"),
        (np.zeros((200, 200, 3), np.float32), None, "must be uint8"),
        (np.zeros((200, 200, 3), np.uint8), "wavy", "wavy"),
    ],
)
def test_bad_input(pixels: NDArray[np.uint8], kind: Kind | None, message: str) -> None:
    with pytest.raises(DeblurExportError, match=message):
        synthesize(pixels, 0, SIZE, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_flat_and_just_large_enough_photos(kind: Kind) -> None:
    for pixels in (np.full((96, 128, 3), 90, np.uint8), textured(1, 96, 128)):
        pair = synthesize(pixels, 5, SIZE, kind)
        assert np.isfinite(pair.blurred).all() and np.isfinite(pair.motion).all()


def test_flat_crops_are_avoided() -> None:
    """Only the right quarter of this photo shows anything."""
    half_flat = np.full((300, 1200, 3), 128, np.uint8)
    half_flat[:, 900:] = textured(2, 300, 300)
    crops = [random_crop(half_flat, (128, 128), np.random.default_rng(i)) for i in range(12)]
    inner = (gradient(crop[MARGIN:-MARGIN, MARGIN:-MARGIN, 1]).mean() for crop in crops)
    assert sum(amount > 2 for amount in inner) >= 9


def test_shapes_have_their_area_and_soft_edges() -> None:
    for seed in range(12):
        shape = random_shape(np.random.default_rng(seed), (300, 300), (150, 150), 9000)
        assert shape.sum() == pytest.approx(9000, rel=0.1)
        assert shape[150, 150] == pytest.approx(1.0)
        assert ((shape > 0.1) & (shape < 0.9)).any()


def test_encoding_is_srgb() -> None:
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(light.to_srgb(light.decode(codes)), codes / 255, atol=1e-5)
    assert light.decode(np.array([188], np.uint8))[0] == pytest.approx(0.5029, abs=1e-3)
