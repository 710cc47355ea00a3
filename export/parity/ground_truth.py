"""What an artifact loses against the sharp truth, beside its network in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.parity import metrics

if TYPE_CHECKING:
    from deblur_export.export.images.pairs import Pair, Pairs

Image = NDArray[np.float32]  # [1, 3, H, W]
Run = Callable[[Image], Image]


@dataclass(frozen=True)
class Scores:
    """Against the sharp image: PSNR in dB, SSIM, and both weighted by the blur mask, None without
    blurred pixels."""

    psnr: float
    ssim: float
    psnr_w: float | None
    ssim_w: float | None


@dataclass(frozen=True)
class PairResult:
    """One pair: the scores of PyTorch (`reference`) and of the artifact, and in `parity` the PSNR
    of one against the other."""

    name: str
    reference: Scores
    candidate: Scores
    parity: float

    @property
    def drop(self) -> float:
        """dB of PSNR that the candidate loses; negative where it gains."""
        theirs, ours = self.reference.psnr, self.candidate.psnr
        return 0.0 if theirs == ours else theirs - ours  # both may be infinite


@dataclass(frozen=True)
class TruthReport:
    """Every pair, and the bounds in dB: `max_drop` of the mean PSNR, `min_psnr` of each pair's
    parity."""

    source: str
    max_drop: float
    min_psnr: float
    pairs: tuple[PairResult, ...]

    @property
    def drop(self) -> float:
        """Mean over the pairs, in dB."""
        return float(np.mean([pair.drop for pair in self.pairs]))

    @property
    def reason(self) -> str:
        """Why it failed; empty if it passed."""
        unlike = [pair for pair in self.pairs if not pair.parity >= self.min_psnr]
        if not self.drop <= self.max_drop:
            return f"{self.summary}, and {self.max_drop:g} dB are allowed"
        if unlike:
            return (
                f"{unlike[0].name} is {unlike[0].parity:.2f} dB from PyTorch, below "
                f"{self.min_psnr:g} dB"
            )
        return ""

    @property
    def passed(self) -> bool:
        return not self.reason

    @property
    def summary(self) -> str:
        count, verb = len(self.pairs), "gain" if round(self.drop, 4) < 0 else "lose"
        pairs = f"1 pair {verb}s" if count == 1 else f"{count} pairs {verb}"
        return f"{pairs} {abs(self.drop):.4f} dB of PSNR against the truth"

    def means(self) -> tuple[Scores, Scores]:
        """Of PyTorch and of the candidate."""
        return (
            _means([pair.reference for pair in self.pairs]),
            _means([pair.candidate for pair in self.pairs]),
        )

    def worst(self) -> list[PairResult]:
        """The pairs by their drop, the largest first."""
        return sorted(self.pairs, key=lambda pair: pair.drop, reverse=True)


def judge(
    pairs: Pairs,
    theirs: Run,
    ours: Run,
    max_drop: float,
    min_psnr: float = 0.0,
    progress: Callable[[str], None] = lambda step: None,
) -> TruthReport:
    """Restore every pair by both sides; images are clipped to 0..1, as they would be saved.

    Raises:
        DeblurExportError: a pair cannot be read or does not fit, or a side returns another size.
    """
    results = []
    for number, pair in enumerate(pairs, 1):
        progress(f"pair {number} of {pairs.count}")
        results.append(_result(pair, theirs(pair.blurred), ours(pair.blurred)))
    return TruthReport(pairs.source, max_drop, min_psnr, tuple(results))


def _result(pair: Pair, theirs: Image, ours: Image) -> PairResult:
    if not theirs.shape == ours.shape == pair.sharp.shape:
        raise DeblurExportError(
            f"{pair.name}: output {list(ours.shape)} instead of {list(pair.sharp.shape)}"
        )
    reference, candidate = (_scores(pair, np.clip(image, 0, 1)) for image in (theirs, ours))
    return PairResult(pair.name, reference, candidate, metrics.psnr(theirs, ours))


def _scores(pair: Pair, restored: Image) -> Scores:
    sharp, image, mask = pair.sharp[0], restored[0], pair.mask
    blurred = mask is not None and bool(mask.any())
    return Scores(
        psnr=metrics.psnr(sharp, image),
        ssim=metrics.ssim(sharp, image),
        psnr_w=metrics.psnr(sharp, image, weight=mask) if blurred else None,
        ssim_w=metrics.ssim(sharp, image, weight=mask) if blurred else None,
    )


def _means(scores: Sequence[Scores]) -> Scores:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return Scores(
        psnr=float(np.mean([score.psnr for score in scores])),
        ssim=float(np.mean([score.ssim for score in scores])),
        psnr_w=mean(score.psnr_w for score in scores),
        ssim_w=mean(score.ssim_w for score in scores),
    )
