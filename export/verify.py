"""Does an artifact still compute what its PyTorch network computes?

Polygraphy runs both on the same images. A mask-aware network decides pixel by pixel with a
threshold, and two correct float32 implementations may disagree where the score is within rounding
of it; such flips are counted against a budget, and the images are then compared under the same
mask, so that a flip can neither fail a correct file nor hide a wrong one.
"""

from __future__ import annotations

import copy
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from polygraphy.comparator import Comparator
from polygraphy.logger import G_LOGGER
from torch import nn

from deblur_export.errors import DeblurExportError
from deblur_export.export import metrics
from deblur_export.export.cases import Case
from deblur_export.export.checkpoint import LoadedModel, load_model
from deblur_export.export.manifest import Artifact
from deblur_export.export.pipeline import prepare
from deblur_export.export.report import (
    LAYER_TOLERANCE,
    PIXEL_TOLERANCE,
    CaseImages,
    CaseResult,
    LayerError,
    ParityReport,
)
from deblur_export.export.runners import TorchRunner, inner_values, onnxruntime_runner

# float32 against float32: rounding of some hundred layers; the networks here stay below 1e-5.
FP32_TOLERANCE = {
    PIXEL_TOLERANCE: 1e-4,
    LAYER_TOLERANCE: 1e-4,
    # share of mask pixels that may differ, and how close to the threshold they must be
    "mask_flips": 1e-3,
    "mask_margin": 1e-4,
}
MASK = "mask"
Array = NDArray[np.float32]


def reference_model(artifact: Artifact, weights: str | None = None) -> LoadedModel:
    """The PyTorch network an artifact was made from.

    Args:
        artifact: an ONNX file of ours.
        weights: where the weights are now; None for where they were at export.

    Raises:
        DeblurExportError: the weights are gone or are not the ones exported.
    """
    manifest = artifact.manifest
    recorded = manifest["weights"]
    source = weights or recorded["source"]
    if not source.startswith("random:") and not Path(source).is_file():
        raise DeblurExportError(
            f"{source}: the weights of {artifact.path.name} are not there; pass --weights FILE"
        )
    local = "train_size" in manifest["arguments"]
    variant = manifest["variant"].removesuffix("-local") if source.startswith("random:") else None
    model = load_model(manifest["model"], variant, source, local)
    if model.sha256 != recorded["sha256"]:
        raise DeblurExportError(
            f"{source}: not the weights that {artifact.path.name} was exported from "
            f"(SHA-256 {model.sha256[:12]} instead of {recorded['sha256'][:12]})"
        )
    return model


def verify(
    artifact: Artifact,
    model: LoadedModel,
    cases: Sequence[Case],
    with_images: bool = False,
    progress: Callable[[str], None] = lambda step: None,
    float64: bool = False,
) -> ParityReport:
    """Compare an artifact with its network on every case.

    On failure, and for the HTML report (`with_images`), the layers are compared one by one.
    With `float64` the network also runs in float64, and the errors of both sides against that
    are reported; they decide nothing.
    """
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    extra = (MASK,) if MASK in inner_values(artifact.path) else ()
    reference = TorchRunner(model.net, modules=extra)
    candidate = onnxruntime_runner(artifact.path, extra)
    progress(f"running {len(cases)} cases on ONNX Runtime and PyTorch")
    # A generator would be consumed by the first runner.
    feeds = [{"image": case.image} for case in cases]
    results = Comparator.run([candidate, reference], data_loader=feeds)
    (_, ours), (_, theirs) = results.items()
    exact = copy.deepcopy(model.net).double() if float64 else None
    compared = []
    with reference:
        for case, candidate_out, reference_out in zip(cases, ours, theirs, strict=True):
            progress(f"comparing {case.name}")
            result = _compare(
                case, dict(candidate_out), dict(reference_out), reference, with_images
            )
            if exact is not None:
                result = _against_float64(result, case, exact, candidate_out, reference_out)
            compared.append(result)
    failed = next((c for c, r in zip(cases, compared, strict=True) if not r.passed), None)
    layers: tuple[LayerError, ...] = ()
    if failed is not None or with_images:
        progress("comparing layers")
        layers = compare_layers(artifact, model, failed or cases[0])
    return ParityReport(
        artifact=str(artifact.path),
        reference=f"PyTorch {torch.__version__} float32, {model.title}, {model.weights}",
        candidate=f"ONNX Runtime {onnxruntime.__version__} CPU ({platform.machine()})",
        tolerance=FP32_TOLERANCE,
        cases=tuple(compared),
        layers=layers,
        first_departed=next((layer.name for layer in layers if layer.departed), None),
        manifest=artifact.manifest,
    )


def _compare(
    case: Case,
    candidate: dict[str, Array],
    reference: dict[str, Array],
    runner: TorchRunner,
    with_images: bool,
) -> CaseResult:
    flips = pixels = None
    reason = ""
    if MASK in candidate:
        flipped = candidate[MASK] != reference[MASK]
        flips, pixels = int(flipped.sum()), flipped.size
        if flips:
            reason = _judge_flips(case, flipped, runner)
            reference = _under_mask(runner, case, candidate[MASK])
    ours, theirs = candidate["restored"], reference["restored"]
    if ours.shape != theirs.shape:
        raise DeblurExportError(f"{case.name}: output {ours.shape} instead of {theirs.shape}")
    errors = metrics.error_summary(theirs, ours)
    if not errors.max_abs <= FP32_TOLERANCE[PIXEL_TOLERANCE]:
        limit = FP32_TOLERANCE[PIXEL_TOLERANCE]
        reason = f"max error {errors.max_abs:.1e} is above {limit:.0e}; {reason}".rstrip("; ")
    return CaseResult(
        name=case.name,
        shape=case.image.shape,
        max_abs=errors.max_abs,
        mean_abs=errors.mean_abs,
        psnr=metrics.psnr(theirs, ours),
        psnr_8bit=metrics.psnr_8bit(theirs, ours),
        ssim=float(np.mean([metrics.ssim(a, b) for a, b in zip(theirs, ours, strict=True)])),
        mask_flips=flips,
        mask_pixels=pixels,
        passed=not reason,
        reason=reason,
        images=_images(case, theirs, ours) if with_images else None,
    )


def _against_float64(
    result: CaseResult,
    case: Case,
    exact: nn.Module,
    candidate: Mapping[str, Array],
    reference: Mapping[str, Array],
) -> CaseResult:
    """`result` with the errors of both sides against float64, each under its own mask."""
    errors = []
    for outputs in (candidate, reference):
        feed = {"image": case.image} | ({MASK: outputs[MASK]} if MASK in outputs else {})
        with torch.no_grad():
            truth = exact(*(torch.from_numpy(value).double() for value in feed.values()))
        errors.append(float(np.abs(truth.numpy() - outputs["restored"]).max()))
    return replace(result, candidate_float64=errors[0], reference_float64=errors[1])


def _under_mask(runner: TorchRunner, case: Case, mask: Array) -> dict[str, Array]:
    """The reference with the artifact's mask instead of its own."""
    feed = {"image": case.image, MASK: mask}
    return dict(runner.infer(feed, check_inputs=False))  # the mask is no declared input


def _judge_flips(case: Case, flipped: NDArray[np.bool_], runner: TorchRunner) -> str:
    """Why the flipped mask pixels are too many or not borderline; empty if they are neither."""
    margin = _margins(runner.net, case)[flipped]
    worst = float(np.abs(margin).max())
    if worst > FP32_TOLERANCE["mask_margin"]:
        return f"a mask pixel differs although its score is {worst:.1e} from the threshold"
    if flipped.mean() > FP32_TOLERANCE["mask_flips"] and flipped.sum() > 1:
        return f"{int(flipped.sum())} of {flipped.size} mask pixels differ"
    return ""


def _margins(net: nn.Module, case: Case) -> Array:
    """Distance of each mask score from the threshold, [N, 1, h, w]."""
    scores: list[torch.Tensor] = []
    mask = net.get_submodule(MASK)
    handle = mask.register_forward_hook(lambda module, inputs, output: scores.append(inputs[0]))
    with handle, torch.no_grad():
        net(torch.from_numpy(case.image))
        margin: torch.Tensor = mask.margin(scores[0])  # type: ignore[operator]
    return margin.numpy()


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


def compare_layers(artifact: Artifact, model: LoadedModel, case: Case) -> tuple[LayerError, ...]:
    """Every module whose output is a value of the graph, in execution order.

    The reference is the network as it was exported (reparameterized or not), under the
    artifact's own mask, so that only arithmetic differs.
    """
    net, _ = prepare(model, artifact.manifest["reparameterized"])
    once = _called_once(net, case)
    names = tuple(name for name in inner_values(artifact.path) if name in once)
    with onnxruntime_runner(artifact.path, names) as candidate:
        ours = candidate.infer({"image": case.image})
    with TorchRunner(net, modules=names) as reference:
        feed = {"image": case.image}
        theirs = _under_mask(reference, case, ours[MASK]) if MASK in ours else reference.infer(feed)
    return tuple(_layer_error(name, ours[name], theirs[name]) for name in names)


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


def _layer_error(name: str, ours: Array, theirs: Array) -> LayerError:
    difference = ours.astype(np.float64) - theirs
    scale = np.sqrt(np.mean(np.square(theirs, dtype=np.float64)))
    relative = float(np.sqrt(np.mean(np.square(difference))) / max(scale, 1e-30))
    return LayerError(
        name=name,
        max_abs=float(np.abs(difference).max()),
        rms_rel=relative,
        departed=not relative <= FP32_TOLERANCE[LAYER_TOLERANCE],
    )
