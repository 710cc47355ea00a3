"""Cases of RFFT2, IRFFT2 and FFT2."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from deblur_export.plugins.ops.rfft2 import fft2, irfft2, rfft2
from tests.plugins.harness import Case, Inputs, rand, rounded

SIZES = ((1, 2, 8, 8), (2, 1, 5, 7), (1, 1, 1, 6), (1, 1, 6, 1), (1, 1, 1, 1), (1, 1, 96, 50))


def images(n: int, c: int, h: int, w: int, norm: int, onesided: int) -> Callable[..., Inputs]:
    settings = {"norm": norm, "onesided": onesided}
    return lambda dtype: rounded({"x": 2 + rand(n, c, h, w)}, dtype) | settings


def spectra(n: int, c: int, h: int, w: int, norm: int) -> Callable[..., Inputs]:
    def make(dtype: torch.dtype) -> Inputs:
        parts = {name: rand(n, c, h, w // 2 + 1, seed=seed) for seed, name in enumerate(PARTS)}
        return rounded(parts, dtype) | {"width": w, "norm": norm}

    return make


def complex_images(
    n: int, c: int, h: int, w: int, norm: int, inverse: int
) -> Callable[..., Inputs]:
    def make(dtype: torch.dtype) -> Inputs:
        parts = {name: rand(n, c, h, w, seed=seed) for seed, name in enumerate(PARTS)}
        return rounded(parts, dtype) | {"norm": norm, "inverse": inverse}

    return make


PARTS = ("re", "im")


def sums(
    re: Tensor, im: Tensor | None, norm: int, inverse: int = 0, columns: int | None = None
) -> tuple[Tensor, Tensor]:
    """The definition: one sum over all values for each frequency."""
    h, w = re.shape[2:]
    z = torch.complex(re.double(), torch.zeros_like(re.double()) if im is None else im.double())
    sign = 1 if inverse else -1

    def wave(n: int, count: int) -> Tensor:
        angles = 2 * math.pi / n * torch.outer(torch.arange(n), torch.arange(count)).double()
        return torch.polar(torch.ones_like(angles), sign * angles)

    waves = wave(h, h), wave(w, columns or w)
    result = torch.einsum("nchw,hj,wk->ncjk", z, *waves) * (h * w) ** (-norm / 2)
    return result.real.to(re).contiguous(), result.imag.to(re).contiguous()


def half(x: Tensor, norm: int, onesided: int) -> tuple[Tensor, Tensor]:
    return sums(x, None, norm, columns=x.shape[3] // 2 + 1 if onesided else None)


def whole(re: Tensor, im: Tensor, width: int, norm: int) -> Tensor:
    """The inverse of the spectrum of a real image: the columns that are left out are the conjugates
    of others. What the imaginary part has that no such spectrum has is not read."""
    h, k = re.shape[2:]
    rows = (-torch.arange(h)) % h
    rest = torch.arange(width - k, 0, -1)
    full_re = torch.cat([re, re[:, :, rows][..., rest]], 3)
    full_im = torch.cat([im, -im[:, :, rows][..., rest]], 3)
    alone = [0] if width % 2 else [0, width // 2]
    for part, odd in ((full_re, 1), (full_im, -1)):
        column = part[..., alone]
        part[..., alone] = (column + odd * column[:, :, rows]) / 2
    return sums(full_re, full_im, norm, inverse=1)[0]


CASES = [
    *(
        Case(
            "RFFT2",
            f"{'x'.join(map(str, size))}-norm-{norm}{'-whole' * (not onesided)}",
            images(*size, norm, onesided),
            rfft2,
            half,
        )
        for size, norm, onesided in zip(SIZES, (0, 1, 2, 0, 1, 2), (1, 0, 1, 1, 1, 0), strict=True)
    ),
    *(
        Case(
            "IRFFT2", f"{'x'.join(map(str, size))}-norm-{norm}", spectra(*size, norm), irfft2, whole
        )
        for size, norm in zip(SIZES, (2, 1, 0, 2, 1, 2), strict=True)
    ),
    *(
        Case(
            "FFT2",
            f"{'x'.join(map(str, size))}-norm-{norm}-inverse-{inverse}",
            complex_images(*size, norm, inverse),
            fft2,
            sums,
        )
        for size, norm, inverse in (
            ((1, 2, 8, 8), 0, 0),
            ((2, 1, 5, 7), 1, 1),
            ((1, 1, 1, 6), 2, 1),
            ((1, 1, 48, 50), 2, 1),
        )
    ),
]
