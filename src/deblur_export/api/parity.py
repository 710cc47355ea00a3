"""`verify`: does a file still compute what its PyTorch network computes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deblur_export.api.common import (
    TORCH_LOCK,
    PathLike,
    Progress,
    as_artifact,
    as_path,
    quiet,
)
from deblur_export.artifact import Artifact
from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import cases_for
from deblur_export.export.images.pairs import open_pairs
from deblur_export.export.parity import onnx_reference
from deblur_export.export.parity import verify as parity
from deblur_export.export.parity.provenance import provenance
from deblur_export.export.parity.record import record_parity
from deblur_export.export.parity.reference import Reference
from deblur_export.export.parity.report import ParityReport, to_json
from deblur_export.export.parity.report_html import to_html
from deblur_export.export.runtimes.choose import choose_runtime, default_runtime
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.outputs import check_outputs
from deblur_export.precision import GraphPrecision

RUNTIME_NOTE = "runtime: "  # begins the note that says what was chosen, and why


def verify(
    file: Artifact | PathLike,
    model: LoadedModel | str | None = None,
    *,
    against: PathLike | None = None,
    images: PathLike | None = None,
    pairs: PathLike | None = None,
    max_psnr_drop: float | None = None,
    weights: PathLike | None = None,
    ema: bool | None = None,
    runtime: str | None = None,
    precision: GraphPrecision = "fp32",
    plugins: Sequence[PathLike] = (),
    float64: bool = False,
    min_psnr: float | None = None,
    json: PathLike | None = None,
    html: PathLike | None = None,
    progress: Progress = quiet,
) -> ParityReport:
    """Compare an ONNX file or engine with its PyTorch network, or if it was adopted with the file
    that it was adopted from; the options of `deblur-export verify`.

    Args:
        file: an artifact or its path.
        model: the network; None loads the one that the manifest names. A network of your own has
            to be named again, as `load_model` takes it: its code is run.
        against: an ONNX file in float32 to compare with instead; of an adopted file, where its
            original is now.
        images: folder of photos to compare on, besides synthetic images. Those that cannot be read
            are left out, and notes of the report say so; of `pairs` too.
        pairs: folder of `deblur-export pairs`, or with blurred/ and sharp/: both sides are then
            compared with the sharp images too.
        max_psnr_drop: with `pairs`: mean loss in dB that is allowed; None is 0.1.
        weights: where the weights are now, if they moved since the export.
        ema: which weights of a checkpoint with two sets: True for those averaged over the training,
            False for the others, None for those that were exported.
        runtime: what runs the file; None is ONNX Runtime on the CPU, and TensorRT for an engine.
        precision: in which OpenVINO computes a float32 file.
        plugins: libraries of custom ops that an engine was built with.
        float64: also report the errors of both sides against the network in float64, which an ONNX
            file as the reference does not have.
        min_psnr: fail below this PSNR against the reference, in dB.
        json, html: also write the report as JSON, and as one HTML page with sliders, error maps
            and the error of every layer.
        progress: called with a description of each step.

    Returns:
        The report; `.passed` is the verdict and `.verdict` says it in one sentence. The figures of
        a passed one are recorded in the manifest beside the file.

    Raises:
        DeblurExportError: the file, its weights or a folder cannot be read, the runtime is not
            installed, or a report cannot be written.
    """
    if max_psnr_drop is not None and pairs is None:
        raise DeblurExportError("max_psnr_drop is measured against the sharp images of pairs")
    if against is not None and (model is not None or weights is not None or ema is not None):
        raise DeblurExportError("against names another file, which needs no network and weights")
    artifact = as_artifact(file)
    check_outputs(
        [("the JSON report", as_path(json)), ("the HTML report", as_path(html))],
        [
            *artifact.files,
            *map(as_path, (weights, images, pairs, against)),
            *map(Path, plugins),
        ],
    )
    # A verdict must not depend on what else is installed, so that "auto" is no default here.
    asked = runtime or default_runtime(artifact.path)
    chosen = choose_runtime(asked, artifact, precision)
    ground_truth = None
    if pairs is not None:
        drop = parity.MAX_DROP if max_psnr_drop is None else max_psnr_drop
        shape, scale = artifact.manifest.input.shape, artifact.manifest.output.scale
        ground_truth = parity.GroundTruthCheck(open_pairs(Path(pairs), shape, scale), drop)
    left_out: list[str] = []
    cases = cases_for(artifact, as_path(images), left_out.append)
    with TORCH_LOCK:
        report = parity.verify(
            artifact,
            _reference(artifact, as_path(against), model, weights, ema),
            cases,
            html is not None,
            progress,
            float64,
            chosen.runtime,
            min_psnr,
            precision,
            ground_truth,
            tuple(map(Path, plugins)),
        )
    notes = (*report.notes, *left_out)
    report = replace(report, provenance=provenance(artifact), notes=notes)
    if chosen.reason:
        report = replace(report, notes=(f"{RUNTIME_NOTE}{chosen.reason}", *report.notes))
    for path, text in ((as_path(json), to_json), (as_path(html), to_html)):
        if path is not None:
            with atomic_path(path) as temporary:
                temporary.write_text(text(report), encoding="utf-8")
    if report.passed:
        record_parity(artifact, report)
    return report


def _reference(
    artifact: Artifact,
    against: Path | None,
    model: LoadedModel | str | None,
    weights: PathLike | None,
    ema: bool | None,
) -> LoadedModel | Reference:
    """What a file should compute: what the user names, or what its manifest names."""
    if against is not None:
        return onnx_reference.against(artifact, against)
    if artifact.manifest.model.origin == "onnx":
        if model is not None or weights is not None or ema is not None:
            raise DeblurExportError(
                f"{artifact.path}: adopted from an ONNX file, and has no network or weights "
                "besides; name that file with --against FILE"
            )
        return onnx_reference.original(artifact)
    if isinstance(model, LoadedModel):
        return model
    source = None if weights is None else str(weights)
    return parity.reference_model(artifact, source, ema, model)
