"""Compare two images: PSNR, SSIM, their mask-weighted forms, and the distribution of errors.

Everything is computed in float64 for any dtype. Images are [C,H,W] or [H,W]; further leading axes
(a batch) are averaged like channels. NaN in an image makes the result NaN, so that the comparison
with any tolerance fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from deblur_export.errors import DeblurExportError

Array = npt.NDArray[np.float64]
BEYOND = 1.5  # what the restored image of a network for images in 0..1 does not reach

# Wang, Bovik, Sheikh, Simoncelli: "Image quality assessment: from error visibility to structural
# similarity", IEEE TIP 13(4), 2004, section III-C.
SSIM_WINDOW, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03

# Edges of the error histogram, one decade apart: 1e-8, 1e-7, ... 1e0.
DECADES: tuple[float, ...] = tuple(float(f"1e{power}") for power in range(-8, 1))


def psnr(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    data_range: float = 1.0,
    weight: npt.ArrayLike | None = None,
) -> float:
    """Peak signal-to-noise ratio, 10 log10(data_range^2 / MSE), in dB; inf if the images are equal.

    Args:
        a, b: arrays of the same shape with values in 0..data_range.
        data_range: the largest possible value.
        weight: [H,W], not negative: the MSE is the weighted mean of squared errors (PSNR_w). NaN is
            returned if it is zero everywhere.

    Raises:
        DeblurExportError: the arrays are empty, differ in shape or do not fit the weight.
    """
    x, y = _pair(a, b)
    _check_range(data_range)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is intended
        squared = np.square(x - y)
    mse = _mean(squared, None if weight is None else _weight(weight, x.shape))
    return math.inf if mse == 0 else 20 * math.log10(data_range) - 10 * math.log10(mse)


def peak(reference: npt.ArrayLike) -> float:
    """The value that tolerances for images in 0..1 are multiplied by: 1, or the largest absolute
    value of an image that reaches beyond 1.5, as of a network without trained weights."""
    largest = float(np.abs(np.asarray(reference, np.float64)).max())
    return largest if BEYOND < largest < math.inf else 1.0


def psnr_8bit(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """PSNR in dB of images that are clipped to 0..1 and rounded to 8 bits, as they are saved."""
    x, y = (np.rint(np.clip(image, 0.0, 1.0) * 255.0) for image in _pair(a, b))
    return psnr(x, y, data_range=255.0)


def ssim(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    data_range: float = 1.0,
    weight: npt.ArrayLike | None = None,
) -> float:
    """Structural similarity (Wang et al. 2004), -1..1: Gaussian 11x11, sigma 1.5, K 0.01 and 0.03.

    It is computed per channel. The mean is over the channels and over the pixels whose window is
    inside the image, as in the authors' code. For images less than 11 pixels high or wide, the
    window is the largest odd size that fits.

    Args:
        a, b: [C,H,W] or [H,W] with values in 0..data_range.
        data_range: the largest possible value.
        weight: [H,W], not negative: the result is the weighted mean of the SSIM map (SSIM_w), with
            the weight at the centre of each window. NaN is returned if all of them are zero.

    Raises:
        DeblurExportError: the arrays are empty, differ in shape or do not fit the weight.
    """
    x, y = _pair(a, b)
    _check_range(data_range)
    if x.ndim < 2:
        raise DeblurExportError(f"SSIM needs images [C,H,W] or [H,W], not shape {list(x.shape)}.")
    height, width = x.shape[-2:]
    kernel = _gaussian(min(SSIM_WINDOW, _odd(height), _odd(width)))
    valid = None
    if weight is not None:
        r = kernel.size // 2
        valid = _weight(weight, x.shape)[r : height - r, r : width - r]
    planes = zip(x.reshape(-1, height, width), y.reshape(-1, height, width), strict=True)
    return float(np.mean([_mean(_ssim_map(p, q, kernel, data_range), valid) for p, q in planes]))


@dataclass(frozen=True)
class ErrorSummary:
    """The distribution of |a - b|.

    Attributes:
        max_abs, mean_abs, rms: largest, mean and root-mean-square error.
        worst_index: index of the largest error.
        histogram: ten counts: below 1e-8 (including zeros), the eight decades from 1e-8 to 1, and 1
            or more (including values that are not finite).
    """

    max_abs: float
    mean_abs: float
    rms: float
    worst_index: tuple[int, ...]
    histogram: tuple[int, ...]

    def __str__(self) -> str:
        total = sum(self.histogram)
        names = ["<1e-8", *(f"{lo:.0e}..{hi:.0e}" for lo, hi in pairwise(DECADES)), ">=1"]
        spread = (
            f"{name}: {count / total:.2%}" if count * 1000 >= total else f"{name}: {count}x"
            for name, count in zip(names, self.histogram, strict=True)
            if count
        )
        return (
            f"max {self.max_abs:.3e} at {list(self.worst_index)}, mean {self.mean_abs:.3e}, "
            f"rms {self.rms:.3e}\n" + "  ".join(spread)
        )


def error_summary(a: npt.ArrayLike, b: npt.ArrayLike) -> ErrorSummary:
    """Summarise |a - b| for arrays of the same shape; of equal largest errors, the first counts."""
    x, y = _pair(a, b)
    with np.errstate(invalid="ignore"):
        error = np.abs(x - y)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    return ErrorSummary(
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        rms=float(np.sqrt(np.square(error).mean())),
        worst_index=tuple(int(i) for i in worst),
        histogram=decade_histogram(error),
    )


def decade_histogram(error: npt.NDArray[np.floating]) -> tuple[int, ...]:
    """Count absolute errors, of any shape, in the ten bins of `ErrorSummary.histogram`."""
    bins = np.searchsorted(DECADES, error.ravel(), side="right")  # NaN sorts last
    return tuple(int(n) for n in np.bincount(bins, minlength=len(DECADES) + 1))


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise DeblurExportError(
            f"Cannot compare images of different shapes: {list(x.shape)} and {list(y.shape)}."
        )
    if x.size == 0:
        raise DeblurExportError(f"Cannot compare empty images (shape {list(x.shape)}).")
    return x, y


def _check_range(data_range: float) -> None:
    if not data_range > 0:
        raise DeblurExportError(f"data_range must be above 0, not {data_range}.")


def _weight(weight: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    w = np.asarray(weight, dtype=np.float64)
    if w.ndim != 2 or w.shape != shape[-2:]:
        raise DeblurExportError(
            f"The weight must be [H,W] of the image {list(shape)}, not {list(w.shape)}."
        )
    if not (np.isfinite(w) & (w >= 0)).all():
        raise DeblurExportError("The weight must be finite and nowhere negative.")
    return w


def _mean(values: Array, weight: Array | None) -> float:
    """Mean of values [...,H,W], weighted by `weight` [H,W] if it is given."""
    if weight is None:
        return float(values.mean())
    total = float(weight.sum())
    if total == 0:
        return math.nan
    planes = math.prod(values.shape[:-2])
    return float((values * weight).sum()) / (total * planes)


def _odd(size: int) -> int:
    return size - 1 + size % 2


def _gaussian(size: int) -> Array:
    offset = np.arange(size) - size // 2
    kernel = np.exp(-0.5 * np.square(offset / SSIM_SIGMA))
    return np.asarray(kernel / kernel.sum())


def _blur(image: Array, kernel: Array) -> Array:
    """Filter [H,W] with a symmetric kernel along both axes without padding; [H-k+1,W-k+1]."""
    for _ in range(2):  # filter along the first axis and transpose, twice
        r = kernel.size // 2
        size = image.shape[0] - 2 * r
        out = image[r : r + size] * kernel[r]
        for i in range(r):
            mirrored = image[i : i + size] + image[2 * r - i : 2 * r - i + size]
            mirrored *= kernel[i]
            out += mirrored
        image = out.T
    return image


def _ssim_map(x: Array, y: Array, kernel: Array, data_range: float) -> Array:
    """SSIM of each window of two channels [H,W] -> [H-k+1,W-k+1] (Eq. 13 of the paper)."""
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    mean_x, mean_y = _blur(x, kernel), _blur(y, kernel)
    mean_xy = mean_x * mean_y
    mean_squares = mean_x * mean_x + mean_y * mean_y
    covariance = _blur(x * y, kernel) - mean_xy
    variances = _blur(x * x + y * y, kernel) - mean_squares  # only their sum is needed
    return ((2 * mean_xy + c1) * (2 * covariance + c2)) / ((mean_squares + c1) * (variances + c2))
