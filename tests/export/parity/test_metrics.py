"""Metrics compared with scikit-image, and edge cases of their definitions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from deblur_export.errors import DeblurExportError
from deblur_export.export.parity.metrics import (
    decade_histogram,
    error_summary,
    psnr,
    psnr_8bit,
    ssim,
)

F32 = npt.NDArray[np.float32]


def pair(shape: tuple[int, ...], noise: float = 0.05) -> tuple[F32, F32]:
    rng = np.random.default_rng(0)
    a = rng.random(shape, dtype=np.float32)
    b = a + noise * rng.standard_normal(shape, dtype=np.float32)
    return a, np.clip(b, 0, 1).astype(np.float32)


def reference_ssim(
    a: F32, b: F32, data_range: float = 1.0
) -> tuple[float, npt.NDArray[np.float64]]:
    from skimage.metrics import structural_similarity  # imports SciPy, which takes a while

    axis = 0 if a.ndim == 3 else None
    mean, ssim_map = structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
        channel_axis=axis,
        full=True,
    )
    return float(mean), ssim_map


@pytest.mark.parametrize("shape", [(3, 40, 57), (1, 64, 33), (48, 31), (3, 11, 20), (11, 11)])
def test_agrees_with_scikit_image(shape: tuple[int, ...]) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    a, b = pair(shape)
    assert ssim(a, b) == pytest.approx(reference_ssim(a, b)[0], abs=1e-9)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4)


def test_data_range_scales_out() -> None:
    a, b = pair((3, 24, 24))
    assert psnr(a * 255, b * 255, data_range=255) == pytest.approx(psnr(a, b), abs=1e-4)
    assert ssim(a * 255, b * 255, data_range=255) == pytest.approx(ssim(a, b), abs=1e-6)
    with pytest.raises(DeblurExportError, match="data_range"):
        psnr(a, b, data_range=0)


def test_equal_images() -> None:
    a, _ = pair((3, 20, 20))
    assert psnr(a, a) == math.inf
    assert psnr_8bit(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 2, 40), (1, 7, 9), (10, 10)])
def test_tiny_images_shrink_the_window(shape: tuple[int, ...]) -> None:
    a, b = pair(shape)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert -1 <= ssim(a, b) < 1


def test_a_batch_is_averaged() -> None:
    a, b = pair((2, 3, 20, 21))
    assert ssim(a, b) == pytest.approx((ssim(a[0], b[0]) + ssim(a[1], b[1])) / 2)
    assert psnr(a, b, weight=np.ones((20, 21))) == pytest.approx(psnr(a, b))


def test_psnr_8bit_rounds_then_compares() -> None:
    a = np.full((3, 8, 8), 100 / 255)
    assert psnr_8bit(a, a + 0.4 / 255) == math.inf
    assert psnr_8bit(a, a + 0.6 / 255) == pytest.approx(20 * math.log10(255))
    assert psnr_8bit(a + 5, a + 9) == math.inf  # both clip to white


def test_weight_selects_a_region() -> None:
    a, b = pair((3, 40, 40))
    weight = np.zeros((40, 40))
    weight[8:20, 9:30] = 1
    region = (slice(None), slice(8, 20), slice(9, 30))
    assert psnr(a, b, weight=weight) == pytest.approx(psnr(a[region], b[region]))
    expected = reference_ssim(a, b)[1][region].mean()
    assert ssim(a, b, weight=weight) == pytest.approx(expected, abs=1e-9)
    assert ssim(a, b, weight=np.full((40, 40), 0.3)) == pytest.approx(ssim(a, b))


def test_zero_weight_is_nan() -> None:
    a, b = pair((3, 16, 16))
    assert math.isnan(psnr(a, b, weight=np.zeros((16, 16))))
    assert math.isnan(ssim(a, b, weight=np.zeros((16, 16))))


def test_bad_input_says_what_is_wrong() -> None:
    a, _ = pair((3, 16, 16))
    with pytest.raises(DeblurExportError, match="different shapes"):
        psnr(a, a[:, :8])
    with pytest.raises(DeblurExportError, match="empty"):
        ssim(a[:, :0], a[:, :0])
    with pytest.raises(DeblurExportError, match="weight must be"):
        psnr(a, a, weight=np.ones((3, 16, 16)))
    with pytest.raises(DeblurExportError, match="negative"):
        ssim(a, a, weight=np.full((16, 16), -1.0))
    with pytest.raises(DeblurExportError, match="SSIM needs"):
        ssim(np.ones(5), np.ones(5))


def test_error_summary() -> None:
    a = np.zeros((2, 3, 4))
    b = a.copy()
    b[1, 2, 3], b[0, 0, 1], b[0, 1, 0] = -0.5, 2e-6, 1e-8
    summary = error_summary(a, b)
    assert summary.max_abs == 0.5
    assert summary.worst_index == (1, 2, 3)
    assert summary.mean_abs == pytest.approx((0.5 + 2e-6 + 1e-8) / 24)
    assert summary.rms == pytest.approx(0.5 / math.sqrt(24))
    assert summary.histogram == (21, 1, 0, 1, 0, 0, 0, 0, 1, 0)
    assert "max 5.000e-01 at [1, 2, 3]" in str(summary)
    assert len(str(summary).splitlines()) <= 2


def test_nan_is_never_good() -> None:
    a, b = pair((3, 16, 16))
    b[1, 4, 5] = np.nan
    summary = error_summary(a, b)
    assert not summary.max_abs <= 1
    assert summary.worst_index == (1, 4, 5)
    assert math.isnan(psnr(a, b))
    assert math.isnan(psnr_8bit(a, b))
    assert math.isnan(ssim(a, b))
    assert decade_histogram(np.array([np.nan, np.inf, 1.0]))[-1] == 3
