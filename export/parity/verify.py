"""Does an artifact still compute what its PyTorch network computes?

Both run on the same images, and on the same discrete choices: those of the artifact, see
`decisions`.
"""

from __future__ import annotations

import copy
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from polygraphy.logger import G_LOGGER
from torch import nn

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import inner_values
from deblur_export.export.images.cases import Case
from deblur_export.export.images.pairs import Pairs
from deblur_export.export.parity import metrics
from deblur_export.export.parity.ground_truth import judge
from deblur_export.export.parity.report import (
    CaseImages,
    CaseResult,
    LayerError,
    ParityReport,
)
from deblur_export.export.parity.runners import SessionRunner, TorchRunner
from deblur_export.export.reparam.prepare import prepare
from deblur_export.export.runtimes.open import open_judged
from deblur_export.export.runtimes.registry import DEFAULT, backend
from deblur_export.models.checkpoint import DEMO, LoadedModel, load_model
from deblur_export.models.decisions import (
    Allowance,
    ChoiceCheck,
    Choices,
    decisions,
    with_choices,
)
from deblur_export.precision import PRECISIONS, GraphPrecision, Tolerances

MAX_DROP = 0.1  # dB, as of `calibrate`
Array = NDArray[np.float32]


@dataclass(frozen=True)
class TruthCheck:
    """Pairs to restore, and how much of the mean PSNR may be lost on them, in dB."""

    pairs: Pairs
    max_drop: float = MAX_DROP


def reference_model(artifact: Artifact, weights: str | None = None) -> LoadedModel:
    """The PyTorch network an artifact was made from.

    Args:
        artifact: an ONNX file of ours.
        weights: where the weights are now; None for where they were at export.

    Raises:
        DeblurExportError: the weights are gone or are not the ones exported.
    """
    manifest = artifact.manifest
    recorded = manifest.weights
    source = weights or recorded.source
    named = source == DEMO or source.startswith("random:")
    if not named and not Path(source).is_file():
        raise DeblurExportError(
            f"{source}: the weights of {artifact.path.name} are not there; pass --weights FILE"
        )
    local = "train_size" in manifest.model.arguments
    variant = manifest.model.variant.removesuffix("-local") if named else None
    model = load_model(manifest.model.name, variant, source, local)
    if model.sha256 != recorded.sha256:
        raise DeblurExportError(
            f"{source}: not the weights that {artifact.path.name} was exported from "
            f"(SHA-256 {model.sha256[:12]} instead of {recorded.sha256[:12]})"
        )
    return model


def verify(
    artifact: Artifact,
    model: LoadedModel,
    cases: Sequence[Case],
    with_images: bool = False,
    progress: Callable[[str], None] = lambda step: None,
    float64: bool = False,
    runtime: str = DEFAULT,
    min_psnr: float | None = None,
    precision: GraphPrecision = "fp32",
    truth: TruthCheck | None = None,
    plugins: Sequence[Path] = (),
) -> ParityReport:
    """Compare an artifact, run by `runtime`, with its network in float32 on every case.

    The tolerance is that of the artifact's precision, or of the one that a backend is to compute a
    float32 file in; `min_psnr`, in dB against PyTorch, comes on top. The backend opens the file by
    `Backend.load_judged`; an engine needs one that takes engines, and the `plugins` that it was
    built with.

    On failure, and for the HTML report (`with_images`), the layers are compared one by one; an
    engine shows none.
    With `float64` the network also runs in float64, and the errors of both sides against that
    are reported; they decide nothing.
    """
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    is_engine = backend(runtime).takes_engines
    deciding = () if is_engine else _deciding(artifact, model.net)
    exact = copy.deepcopy(model.net).double() if float64 else None
    compared = []
    tolerance = _tolerances(artifact, precision)
    tolerance = replace(tolerance, psnr=max(min_psnr or 0.0, tolerance.psnr))
    allowance = Allowance(tolerance.flips, tolerance.flip_distance)
    session = open_judged(artifact, runtime, deciding, precision, plugins)
    judged_truth = None
    with SessionRunner(session) as candidate, TorchRunner(model.net) as reference:
        for case in cases:
            progress(f"{case.name} on {session.title}")
            ours = candidate.infer({"image": case.image})
            choices = {name: ours[name] for name in deciding}
            progress(f"{case.name} on PyTorch")
            with with_choices(model.net, choices, allowance) as checks:
                theirs = reference.infer({"image": case.image})
            exactly = None if exact is None else _run_float64(exact, case, choices)
            images = ours["restored"], theirs["restored"]
            compared.append(_compare(case, *images, checks, exactly, with_images, tolerance))
        if truth is not None:
            judged_truth = judge(
                truth.pairs,
                lambda image: reference.infer({"image": image})["restored"],
                lambda image: candidate.infer({"image": image})["restored"],
                truth.max_drop,
                min_psnr or 0.0,
                progress,
            )
    failed = next((c for c, r in zip(cases, compared, strict=True) if not r.passed), None)
    layers: tuple[LayerError, ...] = ()
    if (failed is not None or with_images) and not is_engine:
        progress("comparing layers")
        layers = compare_layers(artifact, model, failed or cases[0], runtime, precision)
    return ParityReport(
        artifact=str(artifact.path),
        reference=f"PyTorch {torch.__version__} float32, {model.title}, {model.weights}",
        candidate=f"{session.title} ({platform.machine()})",
        tolerance=tolerance.as_dict(),
        cases=tuple(compared),
        layers=layers,
        first_departed=next((layer.name for layer in layers if layer.departed), None),
        manifest=artifact.manifest.as_dict(),
        notes=(*session.notes, *(note_on_choices(model.net) if is_engine else ())),
        truth=judged_truth,
    )


def note_on_choices(net: nn.Module) -> tuple[str, ...]:
    """For an engine, whose choices cannot be read; none for a network that makes none."""
    hidden = list(decisions(net))
    if not hidden:
        return ()
    return (
        "an engine does not show its choices, so that each side was compared under its own: "
        f"{', '.join(hidden[:3])}{', ...' * (len(hidden) > 3)}",
    )


def _tolerances(artifact: Artifact, precision: GraphPrecision) -> Tolerances:
    """Of the artifact's own precision, or of what a runtime computes a float32 file in."""
    own = artifact.manifest.precision
    return PRECISIONS[precision if own == "fp32" else own].tolerances


def _deciding(artifact: Artifact, net: nn.Module) -> tuple[str, ...]:
    """The decisions of the network whose choice is a value of the graph."""
    inside = set(inner_values(artifact.proto))
    return tuple(name for name in decisions(net) if name in inside)


def _run_float64(net: nn.Module, case: Case, choices: Choices) -> NDArray[np.float64]:
    with with_choices(net, choices), torch.no_grad():
        restored: torch.Tensor = net(torch.from_numpy(case.image).double())
    return restored.numpy()


def _compare(
    case: Case,
    ours: Array,
    theirs: Array,
    checks: Sequence[ChoiceCheck],
    truth: NDArray[np.float64] | None,
    with_images: bool,
    tolerance: Tolerances,
) -> CaseResult:
    if ours.shape != theirs.shape:
        raise DeblurExportError(f"{case.name}: output {ours.shape} instead of {theirs.shape}")
    errors = metrics.error_summary(theirs, ours)
    reasons = [check.reason for check in checks if check.reason]
    psnr = metrics.psnr(theirs, ours)
    if not psnr >= tolerance.psnr:
        reasons.insert(0, f"PSNR {psnr:.2f} dB is below {tolerance.psnr:g} dB")
    if not errors.max_abs <= tolerance.max_abs:
        reasons.insert(0, f"max error {errors.max_abs:.1e} is above {tolerance.max_abs:.0e}")
    return CaseResult(
        name=case.name,
        shape=case.image.shape,
        max_abs=errors.max_abs,
        mean_abs=errors.mean_abs,
        psnr=psnr,
        psnr_8bit=metrics.psnr_8bit(theirs, ours),
        ssim=float(np.mean([metrics.ssim(a, b) for a, b in zip(theirs, ours, strict=True)])),
        flips=sum(check.flips for check in checks) if checks else None,
        choices=sum(check.total for check in checks) if checks else None,
        passed=not reasons,
        reason="; ".join(reasons),
        candidate_float64=None if truth is None else float(np.abs(truth - ours).max()),
        reference_float64=None if truth is None else float(np.abs(truth - theirs).max()),
        images=_images(case, theirs, ours) if with_images else None,
    )


def _images(case: Case, reference: Array, candidate: Array) -> CaseImages:
    def to_8bit(image: Array) -> NDArray[np.uint8]:
        levels: NDArray[np.uint8] = np.rint(255 * np.clip(image[0], 0, 1)).astype(np.uint8)
        return levels.transpose(1, 2, 0)

    return CaseImages(
        input=to_8bit(case.image),
        reference=to_8bit(reference),
        candidate=to_8bit(candidate),
        error=np.abs(reference - candidate).max(axis=(0, 1)),
    )


def compare_layers(
    artifact: Artifact,
    model: LoadedModel,
    case: Case,
    runtime: str = DEFAULT,
    precision: GraphPrecision = "fp32",
) -> tuple[LayerError, ...]:
    """Every module whose output is a value of the graph, in execution order.

    The reference is the network as it was exported (reparameterized or not), under the
    artifact's own choices, so that only arithmetic differs. Choices are no layers.
    """
    net, _ = prepare(model, artifact.manifest.reparameterized)
    deciding = _deciding(artifact, net)
    comparable = _called_once(net, case) - set(deciding)
    names = tuple(name for name in inner_values(artifact.proto) if name in comparable)
    with SessionRunner(open_judged(artifact, runtime, names + deciding, precision)) as candidate:
        ours = candidate.infer({"image": case.image})
    choices = {name: ours[name] for name in deciding}
    with with_choices(net, choices), TorchRunner(net, modules=names) as reference:
        theirs = reference.infer({"image": case.image})
    limit = _tolerances(artifact, precision).layer_rms_rel
    return tuple(_layer_error(name, ours[name], theirs[name], limit) for name in names)


def _called_once(net: nn.Module, case: Case) -> set[str]:
    """Modules that run exactly once and return one tensor."""
    calls: Counter[str] = Counter()

    def count(name: str, output: object) -> None:
        calls[name] += 1 if isinstance(output, torch.Tensor) else 2

    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: count(name, o))
        for name, module in net.named_modules()
        if name
    ]
    with torch.no_grad():
        net(torch.from_numpy(case.image))
    for handle in handles:
        handle.remove()
    return {name for name, count in calls.items() if count == 1}


def _layer_error(name: str, ours: Array, theirs: Array, limit: float) -> LayerError:
    difference = ours.astype(np.float64) - theirs
    scale = np.sqrt(np.mean(np.square(theirs, dtype=np.float64)))
    relative = float(np.sqrt(np.mean(np.square(difference))) / max(scale, 1e-30))
    return LayerError(
        name=name,
        max_abs=float(np.abs(difference).max()),
        rms_rel=relative,
        departed=not relative <= limit,
    )
