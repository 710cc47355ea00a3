"""How far apart two images are: PSNR, SSIM, their mask-weighted forms, and the error spread.

Everything is computed in float64, whatever dtype comes in. Images are channels-first, [C,H,W] or
[H,W]; further leading axes (a batch) are averaged like channels. NaN in an image makes the result
NaN, so that comparing it with any tolerance fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from deblur_export.errors import DeblurExportError

Array = npt.NDArray[np.float64]

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

    `a`, `b`: any equal shapes, values 0..data_range. `weight` [H,W], >= 0: the MSE is the weighted
    mean of squared error (PSNR_w); a weight that is zero everywhere gives nan.
    """
    x, y = _pair(a, b)
    _check_range(data_range)
    with np.errstate(invalid="ignore"):  # inf - inf: NaN is the answer, not a surprise
        squared = np.square(x - y)
    mse = _mean(squared, None if weight is None else _weight(weight, x.shape))
    return math.inf if mse == 0 else 20 * math.log10(data_range) - 10 * math.log10(mse)


def psnr_8bit(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """PSNR of the images as they would be saved: clipped to 0..1, rounded to integers 0..255."""
    x, y = (np.rint(np.clip(image, 0.0, 1.0) * 255.0) for image in _pair(a, b))
    return psnr(x, y, data_range=255.0)


def ssim(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    data_range: float = 1.0,
    weight: npt.ArrayLike | None = None,
) -> float:
    """Structural similarity (Wang et al. 2004), -1..1: Gaussian 11x11, sigma 1.5, K 0.01 and 0.03.

    `a`, `b` [C,H,W] or [H,W], values 0..data_range. Each channel on its own; the mean is over
    channels and over the pixels whose window lies inside the image, as in the authors' code. On
    images less than 11 px high or wide the window shrinks to the largest odd size that fits.
    `weight` [H,W], >= 0: weighted mean of the SSIM map (SSIM_w), each weight taken at its window's
    centre; nan if it is zero at all of them.
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
    """The spread of |a - b|.

    `histogram` has ten counts: below 1e-8 (exact zeros too), the eight decades from 1e-8 up to 1,
    then 1 and above (non-finite too).
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
    """Spread of |a - b| over arrays of any equal shapes; the worst index is the first if tied."""
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
    """Ten counts of absolute errors (any shape), binned as in `ErrorSummary.histogram`."""
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
    """Mean of [...,H,W], weighted by [H,W] if given."""
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
    """[H,W] -> [H-k+1,W-k+1]: the symmetric kernel along both axes, window inside the image."""
    for _ in range(2):  # filter the rows axis, transpose, and so back again
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
    """SSIM of each window of two planes [H,W] -> [H-k+1,W-k+1] (eq. 13 of the paper)."""
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    mean_x, mean_y = _blur(x, kernel), _blur(y, kernel)
    mean_xy = mean_x * mean_y
    mean_squares = mean_x * mean_x + mean_y * mean_y
    covariance = _blur(x * y, kernel) - mean_xy
    variances = _blur(x * x + y * y, kernel) - mean_squares  # only their sum is needed
    return ((2 * mean_xy + c1) * (2 * covariance + c2)) / ((mean_squares + c1) * (variances + c2))
