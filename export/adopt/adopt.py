"""Adopt an ONNX file of another exporter: probe it, bring a copy of it into the form of our files,
prove the copy equal to the file, and write it with a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import onnxscript

from deblur_export import __version__
from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.adopt.equal import equal_model, type_values
from deblur_export.export.adopt.examine import Given, Probed, Progress, check_given, probe
from deblur_export.export.adopt.notes import notes_on
from deblur_export.export.adopt.source import Source
from deblur_export.export.pipeline import described_input, described_output
from deblur_export.export.to_onnx import save
from deblur_export.manifest import Manifest
from deblur_export.manifest_blocks import Model, Tile, Weights
from deblur_export.target import DEFAULT


@dataclass(frozen=True)
class Adopted:
    """An adopted file, and what the user should know of it."""

    artifact: Artifact
    notes: tuple[str, ...]


def adopt(
    source: Source, given: Given, output: Path, progress: Progress = lambda step: None
) -> Adopted:
    """Write an artifact that computes what an ONNX file computes.

    Args:
        source: the file, of any exporter.
        given: what is known of it.
        output: the .onnx file to write; its manifest is written beside it.
        progress: called with a line of text for each step.

    Raises:
        CheckFailedError: the adopted graph computes something else than the file.
        DeblurExportError: the file does not map an image to an image, or cannot be run; the
            message says what to give.
    """
    if output.suffix != ".onnx":
        raise DeblurExportError(f"{output}: the output must end in .onnx")
    check_given(given)
    probed = probe(source, given, progress)
    progress("adopting the graph, and comparing it with the original")
    model, notes = equal_model(source, probed)
    if source.domains:
        type_values(model, source.path)
    progress("checking and writing")
    artifact = save(model, output, _manifest(source, probed))
    return Adopted(artifact, (*notes, *notes_on(source, probed, given)))


def _manifest(source: Source, probed: Probed) -> Manifest:
    sha256, images = source.sha256, probed.images
    return Manifest(
        tools={
            "deblur_export": __version__,
            "onnx": onnx.__version__,
            "onnxscript": onnxscript.__version__,
            onnxruntime.__name__: onnxruntime.__version__,
        },
        model=Model(
            origin="onnx",
            name=source.path.stem,
            variant="",
            where=str(source.path),
            arguments=probed.ends.as_dict(),
            source=str(source.path),
            source_sha256=sha256,
        ),
        weights=Weights(str(source.path), sha256),
        target=DEFAULT,
        opset=source.opset,
        precision="fp32",
        high_precision="fp32",
        custom_ops=(),
        input=described_input(images, probed.shape),
        output=described_output(images, probed.shape),
        free=tuple(size for size in probed.shape if isinstance(size, str)),
        facts=probed.facts,
        tile=Tile(images.field, images.tile_period, probed.proved),
        reparameterized=False,
        passes=(),
    )
