"""Which file `trt` starts from."""

from __future__ import annotations

from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.export.checkpoint import default_weights, load_model
from deblur_export.export.engines.options import Precision
from deblur_export.export.manifest import Artifact, read_artifact
from deblur_export.export.pipeline import ExportOptions, Progress, default_path, export_onnx


def export_for_engine(
    model: str | None,
    variant: str | None,
    weights: str | None,
    local: bool,
    folder: Path,
    progress: Progress,
) -> Artifact:
    """Export a network in the form without loops and data-dependent shapes, which both TensorRTs
    build. Arguments as of `checkpoint.load_model`.

    Raises:
        CheckFailedError, DeblurExportError: as `pipeline.export_onnx`.
    """
    progress("loading PyTorch")
    loaded = load_model(model, variant, weights or default_weights(model, variant), local)
    options = ExportOptions(target="rtx")
    return export_onnx(loaded, options, folder / default_path(loaded, options), progress)


def only_artifact(folder: Path, precision: Precision | None) -> Artifact:
    """The one ONNX file of ours in a folder.

    A file in reduced precision that an earlier call wrote beside its fp32 original does not count
    as a second one, unless it is the precision asked for and the original is gone.

    Args:
        folder: not searched below.
        precision: what was asked for, None if nothing was.

    Raises:
        DeblurExportError: none or several; says what there is.
    """
    ours, foreign = [], []
    for path in sorted(folder.glob("*.onnx")):
        try:
            ours.append(read_artifact(path))
        except DeblurExportError:
            foreign.append(path.name)
    originals = [artifact for artifact in ours if artifact.manifest["precision"] == "fp32"]
    candidates = originals or [
        artifact for artifact in ours if precision in (None, artifact.manifest["precision"])
    ]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(artifact.path.name for artifact in candidates)
        raise DeblurExportError(f"several files of ours are here, name one of them: {names}")
    there = [artifact.path.name for artifact in ours]
    found = "; ".join(
        f"{what}: {', '.join(names)}"
        for what, names in (("in another precision", there), ("not ours or damaged", foreign))
        if names
    )
    raise DeblurExportError(
        f"no ONNX file of ours in this folder ({found or 'no .onnx file at all'}); name one, or "
        "give --model"
    )
