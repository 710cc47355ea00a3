"""Compare an artifact and its network in PyTorch with the ground truth of image pairs."""

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

Image = NDArray[np.float32]  # [1, C, H, W]
Run = Callable[[Image], Image]


@dataclass(frozen=True)
class Scores:
    """Scores against the ground truth.

    Attributes:
        psnr: in dB.
        ssim: in -1..1.
        psnr_w, ssim_w: the same weighted by the blur mask; None if no pixel is blurred.
    """

    psnr: float
    ssim: float
    psnr_w: float | None
    ssim_w: float | None


@dataclass(frozen=True)
class PairResult:
    """The result for a pair.

    Attributes:
        name: of the pair.
        reference, candidate: scores of the reference and of the artifact.
        parity: PSNR of the artifact against the reference in dB.
    """

    name: str
    reference: Scores
    candidate: Scores
    parity: float

    @property
    def drop(self) -> float:
        """Loss of PSNR by the candidate in dB; negative for a gain."""
        reference, candidate = self.reference.psnr, self.candidate.psnr
        return 0.0 if reference == candidate else reference - candidate  # both may be infinite


@dataclass(frozen=True)
class GroundTruthReport:
    """The comparison with ground truth.

    Attributes:
        source: folder of the pairs.
        max_drop: allowed loss of the mean PSNR in dB.
        min_psnr: smallest parity of a pair in dB.
        pairs: the results.
        left_out: pairs that could not be read or did not fit, one line each.
    """

    source: str
    max_drop: float
    min_psnr: float
    pairs: tuple[PairResult, ...]
    left_out: tuple[str, ...] = ()

    @property
    def drop(self) -> float:
        """Mean loss of PSNR over the pairs in dB."""
        return float(np.mean([pair.drop for pair in self.pairs]))

    @property
    def reason(self) -> str:
        """Why it failed, or "" if it passed."""
        different = [pair for pair in self.pairs if not pair.parity >= self.min_psnr]
        if not self.drop <= self.max_drop:
            return f"{self.summary}, and {self.max_drop:g} dB are allowed"
        if different:
            return (
                f"the PSNR of {different[0].name} against the reference is "
                f"{different[0].parity:.2f} dB, below {self.min_psnr:g} dB"
            )
        return ""

    @property
    def passed(self) -> bool:
        return not self.reason

    @property
    def summary(self) -> str:
        count, verb = len(self.pairs), "gain" if round(self.drop, 4) < 0 else "lose"
        pairs = f"1 pair {verb}s" if count == 1 else f"{count} pairs {verb}"
        return f"{pairs} {abs(self.drop):.4f} dB of PSNR against the ground truth"

    def means(self) -> tuple[Scores, Scores]:
        """Mean scores of PyTorch and of the candidate."""
        return (
            _means([pair.reference for pair in self.pairs]),
            _means([pair.candidate for pair in self.pairs]),
        )

    def worst(self) -> list[PairResult]:
        """The pairs sorted by their loss, the largest first."""
        return sorted(self.pairs, key=lambda pair: pair.drop, reverse=True)


def compare_with_ground_truth(
    pairs: Pairs,
    reference: Run,
    candidate: Run,
    max_drop: float,
    min_psnr: float = 0.0,
    progress: Callable[[str], None] = lambda step: None,
) -> GroundTruthReport:
    """Restore every pair with reference and candidate, and compare both with the ground truth.

    Args:
        pairs: the pairs.
        reference, candidate: float32 [1, C, H, W] -> [1, C, s H, s W]; outputs are clipped to 0..1.
        max_drop: allowed loss of the mean PSNR in dB.
        min_psnr: smallest PSNR of the candidate against the reference in dB.
        progress: called with a line of text for each pair.

    Raises:
        DeblurExportError: no pair can be read and fits, or an output has another size.
    """
    results, errors = list[PairResult](), list[DeblurExportError]()
    for index in range(pairs.count):
        progress(f"pair {index + 1} of {pairs.count}")
        try:
            pair = pairs.load(index)
        except DeblurExportError as error:
            errors.append(error)
            continue
        results.append(_result(pair, reference(pair.blurred), candidate(pair.blurred)))
    if not results:
        raise errors[0]
    left_out = tuple(f"left out: {error}" for error in errors)
    return GroundTruthReport(pairs.source, max_drop, min_psnr, tuple(results), left_out)


def _result(pair: Pair, reference: Image, candidate: Image) -> PairResult:
    if not reference.shape == candidate.shape == pair.sharp.shape:
        raise DeblurExportError(
            f"{pair.name}: output {list(candidate.shape)} instead of {list(pair.sharp.shape)}"
        )
    return PairResult(
        name=pair.name,
        reference=_scores(pair, np.clip(reference, 0, 1)),
        candidate=_scores(pair, np.clip(candidate, 0, 1)),
        parity=metrics.psnr(reference, candidate),
    )


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
