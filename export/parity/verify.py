"""Checks that an artifact computes the same as its PyTorch network.

Both run on the same images and with the same discrete choices, which are those of the artifact; see
`decisions`. A file in low precision has wide tolerances; its graph is judged without its roundings
too, with the tolerances of float32, see `float32_form`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from polygraphy.logger import G_LOGGER

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.choices import CHOICES
from deblur_export.export.engines.elsewhere import check_built_elsewhere
from deblur_export.export.float64 import NotFloat64Error
from deblur_export.export.graph import inner_values
from deblur_export.export.images.cases import Case
from deblur_export.export.images.pairs import Pairs
from deblur_export.export.parity import metrics
from deblur_export.export.parity.graph_check import GraphCheck, graph_file, note_on_graph
from deblur_export.export.parity.ground_truth import compare_with_ground_truth
from deblur_export.export.parity.reference import Reference, TorchReference
from deblur_export.export.parity.report import (
    CaseImages,
    CaseResult,
    LayerError,
    ParityReport,
)
from deblur_export.export.parity.runners import SessionRunner
from deblur_export.export.precision.rescale import recorded_powers
from deblur_export.export.runtimes.open import open_reproducible
from deblur_export.export.runtimes.registry import DEFAULT, backend
from deblur_export.export.runtimes.session import Session
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.decisions import Allowance, ChoiceCheck
from deblur_export.models.loading import recorded_model
from deblur_export.precision import FP32, OVERFLOW_ADVICE, PRECISIONS, GraphPrecision, Tolerances

MAX_DROP = 0.1  # dB, as in `calibrate`
Array = NDArray[np.float32]


@dataclass(frozen=True)
class GroundTruthCheck:
    """Image pairs to restore, and the loss of mean PSNR on them that is allowed, in dB."""

    pairs: Pairs
    max_drop: float = MAX_DROP


def reference_model(
    artifact: Artifact,
    weights: str | None = None,
    ema: bool | None = None,
    model: str | None = None,
) -> LoadedModel:
    """Load the PyTorch network from which an artifact was exported.

    Args:
        artifact: an exported ONNX file or an engine.
        weights, ema, model: as of `recorded_model`.

    Raises:
        DeblurExportError: the network or the checkpoint is missing, or has other weights than the
            exported ones.
    """
    if artifact.manifest.model.origin == "onnx":
        raise DeblurExportError(
            f"{artifact.path}: adopted from an ONNX file, and has no PyTorch network"
        )
    return recorded_model(artifact.manifest, artifact.path.name, weights, ema, model)


def verify(
    artifact: Artifact,
    reference: LoadedModel | Reference,
    cases: Sequence[Case],
    with_images: bool = False,
    progress: Callable[[str], None] = lambda step: None,
    float64: bool = False,
    runtime: str = DEFAULT,
    min_psnr: float | None = None,
    precision: GraphPrecision = "fp32",
    ground_truth: GroundTruthCheck | None = None,
    plugins: Sequence[Path] = (),
) -> ParityReport:
    """Compare an artifact, run by `runtime`, with its reference in float32 on every case.

    On failure, and for the HTML report, the layers are compared one by one, except for an engine,
    whose layers cannot be read.

    Args:
        artifact: the candidate: an exported ONNX file or an engine.
        reference: its PyTorch network (see `reference_model`), or what else it should compute.
        cases: images, float32 [N, C, H, W] in 0..1.
        with_images: whether the report contains the images and the comparison of layers.
        progress: called with a line of text for each step.
        float64: also run the reference in float64, and report the errors of candidate and reference
            against that; they do not affect the result.
        runtime: name of the backend, which opens the file by `Backend.load_reproducible`; an engine
            needs one that runs engines.
        min_psnr: smallest PSNR against the reference in dB, in addition to the tolerance of the
            precision.
        precision: in which the backend computes a float32 file; it determines the tolerance.
        ground_truth: image pairs on which both are compared with the sharp images.
        plugins: libraries of the custom ops that an engine was built with.

    Raises:
        DeblurExportError: the file cannot be opened, an output has another shape, or a pair cannot
            be read.
    """
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    is_engine = backend(runtime).runs_engines
    built = check_built_elsewhere(artifact) if is_engine else ()
    expected = as_reference(artifact, reference)
    low = _tolerances(artifact, precision) is not FP32.tolerances
    graph = _open_graph(artifact, expected) if low else None
    deciding = () if is_engine else _deciding(artifact, expected)
    compared, obstacle = [], ""
    tolerance = _tolerances(artifact, precision)
    allowance = Allowance(tolerance.flips, tolerance.flip_distance)
    session = open_reproducible(artifact, runtime, deciding, precision, plugins)
    compared_pairs = None
    with SessionRunner(session) as candidate:
        for case in cases:
            progress(f"{case.name} on {session.title}")
            found = candidate.infer({"image": case.image})
            choices = {name: found[name] for name in deciding}
            progress(f"{case.name} on {expected.name}")
            wanted = expected.run(case.image, choices, allowance)
            exactly = None
            if float64:
                try:
                    exactly = expected.run_float64(case.image, choices)
                except NotFloat64Error as error:
                    obstacle = f"there is no float64 reference: {error}"
            images = found["restored"], wanted.restored
            result = _compare(
                case, *images, wanted.checks, exactly, with_images, tolerance, min_psnr
            )
            if graph is not None:
                progress(f"{case.name} without roundings")
                result = graph.judged(case, result)
            compared.append(result)
        if ground_truth is not None:
            compared_pairs = compare_with_ground_truth(
                ground_truth.pairs,
                lambda image: expected.run(image).restored,
                lambda image: candidate.infer({"image": image})["restored"],
                ground_truth.max_drop,
                min_psnr or 0.0,
                progress,
            )
    failed = next((c for c, r in zip(cases, compared, strict=True) if not r.passed), None)
    layers: tuple[LayerError, ...] = ()
    if (failed is not None or with_images) and not is_engine:
        progress("comparing layers")
        wrong = graph is not None and any(map(_outside_float32, compared))
        layers = compare_layers(
            artifact, expected, failed or cases[0], runtime, precision, graph if wrong else None
        )
    return ParityReport(
        artifact=str(artifact.path),
        reference=expected.title,
        candidate=f"{session.title} ({platform.machine()})",
        tolerance=replace(tolerance, psnr=max(min_psnr or 0.0, tolerance.psnr)).as_dict(),
        cases=tuple(compared),
        layers=layers,
        first_diverged=next((layer.name for layer in layers if layer.diverged), None),
        manifest=artifact.manifest.as_dict(),
        notes=(
            *artifact.notes,
            *expected.notes,
            *(note for note in artifact.manifest.noted if note.startswith(CHOICES)),
            *session.notes,
            *((note_on_graph(artifact, graph, compared),) if low else ()),
            *_note_on_peak(compared),
            *built,
            *(note_on_choices(expected) if is_engine else ()),
            *(() if compared_pairs is None else compared_pairs.left_out),
            *((obstacle,) if obstacle else ()),
        ),
        ground_truth=compared_pairs,
        reference_name=expected.name,
    )


def as_reference(artifact: Artifact, reference: LoadedModel | Reference) -> Reference:
    """The reference, a network as it was exported to the artifact."""
    if isinstance(reference, LoadedModel):
        return TorchReference(reference, artifact.manifest.reparameterized, artifact.manifest)
    return reference


def _open_graph(artifact: Artifact, reference: Reference) -> GraphCheck | None:
    """The graph of a file in low precision, without its roundings; None if it is not there."""
    file = graph_file(artifact)
    if file is None:
        return None
    return GraphCheck(file, reference, _deciding(file, reference))


def _note_on_peak(compared: Sequence[CaseResult]) -> tuple[str, ...]:
    peak = max((case.peak for case in compared), default=1.0)
    if peak == 1:
        return ()
    return (
        f"the network's output reaches {peak:.3g}, not about 1: the tolerances are relative to the "
        "largest output of each case",
    )


def _outside_float32(result: CaseResult) -> bool:
    return not (result.without_rounding or 0.0) <= FP32.tolerances.max_abs * result.peak


def note_on_choices(reference: Reference) -> tuple[str, ...]:
    """The note for an engine, whose choices cannot be read; none for a network without choices."""
    hidden = reference.decisions
    if not hidden:
        return ()
    return (
        f"the choices of an engine cannot be read, so that engine and {reference.name} each made "
        f"their own: {', '.join(hidden[:3])}{', ...' * (len(hidden) > 3)}",
    )


def _tolerances(artifact: Artifact, precision: GraphPrecision) -> Tolerances:
    """The tolerances of the artifact's precision, or of the one in which a float32 file is
    computed."""
    own = artifact.manifest.precision
    return PRECISIONS[precision if own == "fp32" else own].tolerances


def _deciding(artifact: Artifact, reference: Reference) -> tuple[str, ...]:
    """The decisions of the reference whose choices are values of the graph."""
    inside = set(inner_values(artifact.proto))
    return tuple(name for name in reference.decisions if name in inside)


def _compare(
    case: Case,
    candidate: Array,
    reference: Array,
    checks: Sequence[ChoiceCheck],
    exact: NDArray[np.float64] | None,
    with_images: bool,
    tolerance: Tolerances,
    min_psnr: float | None,
) -> CaseResult:
    if candidate.shape != reference.shape:
        raise DeblurExportError(
            f"{case.name}: output {candidate.shape} instead of {reference.shape}"
        )
    errors = metrics.error_summary(reference, candidate)
    reasons = [check.reason for check in checks if check.reason]
    psnr, peak = metrics.psnr(reference, candidate), metrics.peak(reference)
    lowest = max(min_psnr or 0.0, tolerance.psnr - 20 * math.log10(peak))
    if not psnr >= lowest:
        reasons.insert(0, f"PSNR {psnr:.2f} dB is below {lowest:.4g} dB")
    if not errors.max_abs <= tolerance.max_abs * peak:
        bound = tolerance.max_abs * peak
        reasons.insert(0, f"max error {errors.max_abs:.1e} is above {bound:.0e}")
    if not np.isfinite(candidate).all() and np.isfinite(reference).all():
        reasons.insert(0, f"its output contains NaN or infinity: {OVERFLOW_ADVICE}")
    return CaseResult(
        name=case.name,
        shape=case.image.shape,
        max_abs=errors.max_abs,
        mean_abs=errors.mean_abs,
        psnr=psnr,
        psnr_8bit=metrics.psnr_8bit(reference, candidate),
        ssim=float(
            np.mean([metrics.ssim(a, b) for a, b in zip(reference, candidate, strict=True)])
        ),
        flips=sum(check.flips for check in checks) if checks else None,
        choices=sum(check.total for check in checks) if checks else None,
        passed=not reasons,
        reason="; ".join(reasons),
        candidate_float64=None if exact is None else float(np.abs(exact - candidate).max()),
        reference_float64=None if exact is None else float(np.abs(exact - reference).max()),
        photo=case.photo,
        peak=peak,
        images=_images(case, reference, candidate) if with_images else None,
    )


def _images(case: Case, reference: Array, candidate: Array) -> CaseImages:
    def to_8bit(images: Array) -> NDArray[np.uint8]:
        """The first image as RGB; grey has three equal channels, and alpha shows white."""
        image = np.clip(images[0], 0, 1)
        colours = image[:3] if len(image) >= 3 else image[:1].repeat(3, axis=0)
        if len(image) == 4:
            colours = colours * image[3] + (1 - image[3])
        levels: NDArray[np.uint8] = np.rint(255 * colours).astype(np.uint8)
        return levels.transpose(1, 2, 0)

    return CaseImages(
        input=to_8bit(case.image),
        reference=to_8bit(reference),
        candidate=to_8bit(candidate),
        error=np.abs(reference - candidate).max(axis=(0, 1)),
    )


def compare_layers(
    artifact: Artifact,
    reference: LoadedModel | Reference,
    case: Case,
    runtime: str = DEFAULT,
    precision: GraphPrecision = "fp32",
    graph: GraphCheck | None = None,
) -> tuple[LayerError, ...]:
    """Compare every layer of the reference that is a value of the graph, in execution order.

    The reference has the choices of the artifact, so that only the arithmetic differs. Choices are
    not compared as layers. With `graph`, that is compared, with the tolerance of float32.

    Raises:
        DeblurExportError: the file cannot be opened.
    """
    layered = as_reference(artifact, reference)
    deciding = _deciding(artifact, layered)
    comparable = layered.layers(case.image) - set(deciding)
    names = tuple(name for name in inner_values(artifact.proto) if name in comparable)
    if graph is not None:
        session: Session = graph.open(names + deciding)
        limit = FP32.tolerances.layer_rms_rel
    else:
        session = open_reproducible(artifact, runtime, names + deciding, precision)
        limit = _tolerances(artifact, precision).layer_rms_rel
    with SessionRunner(session) as candidate:
        found = candidate.infer({"image": case.image})
    choices = {name: found[name] for name in deciding}
    expected = layered.run_layers(case.image, names, choices)
    for name, power in recorded_powers(artifact.manifest.passes).items():
        if name in found:
            found[name] = found[name] * np.float32(2.0**power)
    return tuple(
        _layer_error(name, found[name], expected[name], limit)
        for name in names
        # Another shape: an edit of the file uses the name for something else.
        if found[name].shape == expected[name].shape
    )


def _layer_error(name: str, candidate: Array, reference: Array, limit: float) -> LayerError:
    difference = candidate.astype(np.float64) - reference
    scale = np.sqrt(np.mean(np.square(reference, dtype=np.float64)))
    relative = float(np.sqrt(np.mean(np.square(difference))) / max(scale, 1e-30))
    return LayerError(
        name=name,
        max_abs=float(np.abs(difference).max()),
        rms_rel=relative,
        diverged=not relative <= limit,
    )
