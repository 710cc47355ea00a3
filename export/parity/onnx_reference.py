"""Another ONNX file as the reference of a verification: the original of an adopted file, or one
that the user names. Nothing but that file is read; no code is imported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from deblur_export.artifact import METADATA_KEY, Artifact, ModelFile, read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.adopt.ends import Ends, free_inputs
from deblur_export.export.adopt.runs import Runs, padded
from deblur_export.export.adopt.source import Source, normalized, read_source
from deblur_export.export.graph import inner_values, message_of, with_outputs
from deblur_export.export.parity.reference import NO_CHOICES, Array, Expected
from deblur_export.file_names import is_file
from deblur_export.manifest import Manifest
from deblur_export.models.decisions import FLOAT32, Allowance, Choices
from deblur_export.models.image_spec import ImageSpec
from deblur_export.shown import shown


class OnnxReference:
    """An ONNX file in ONNX Runtime in float32, a `parity.reference.Reference`.

    The image is padded and converted here, in NumPy, and not by the graph that is judged.

    Args:
        file: the file.
        model: its graph in float32.
        ends: how the graph wants images.
        images: which it accepts.
        notes: for the user.
        threads: of ONNX Runtime; 0 leaves the number to it.
    """

    decisions: tuple[str, ...] = ()

    def __init__(
        self,
        file: ModelFile,
        model: onnx.ModelProto,
        ends: Ends,
        images: ImageSpec,
        notes: tuple[str, ...] = (),
        threads: int = 0,
    ) -> None:
        self.file, self.model, self.ends, self.images = file, model, ends, images
        self.notes = notes
        self.name = shown(file.path.name)
        self.title = f"ONNX Runtime {onnxruntime.__version__} float32, {shown(file.path)}"
        self.runs = Runs(model, file.path, ends, threads=threads)

    def run(
        self, image: Array, choices: Choices = NO_CHOICES, allowance: Allowance = FLOAT32
    ) -> Expected:
        return Expected(self.runs.restored_any(image, self.images))

    def run_float64(self, image: Array, choices: Choices = NO_CHOICES) -> NDArray[np.float64]:
        raise DeblurExportError(
            f"{self.file.path}: ONNX Runtime cannot run it in float64; leave --float64 out"
        )

    def weights(self) -> list[Array]:
        if isinstance(self.file, Source):
            model = message_of(normalized(self.file, "portable")[0])
        else:
            model = self.model
        arrays = map(onnx.numpy_helper.to_array, model.graph.initializer)
        return [array for array in arrays if array.dtype == np.float32]

    def layers(self, image: Array) -> frozenset[str]:
        return frozenset(self._layers[1])

    def run_layers(
        self, image: Array, names: Sequence[str], choices: Choices = NO_CHOICES
    ) -> dict[str, Array]:
        values = self._layers[0].values(padded(image, self.images), names)
        return dict(zip(names, map(np.asarray, values), strict=True))

    @cached_property
    def _layers(self) -> tuple[Runs, list[str]]:
        """The graph with all inner values as outputs, and names of those in float32."""
        known = {output.name for output in self.model.graph.output}
        names = [name for name in inner_values(self.model) if name and name not in known]
        runs = Runs(with_outputs(self.model, names), self.file.path, self.ends)
        outputs = runs.session.get_outputs()
        return runs, [value.name for value in outputs if value.type == "tensor(float)"]


def original(artifact: Artifact, threads: int = 0) -> OnnxReference:
    """The file that an artifact was adopted from, or that it was made of; it runs with a number of
    threads, 0 for what ONNX Runtime takes.

    Raises:
        DeblurExportError: it is not where it was, or has changed.
    """
    model = artifact.manifest.model
    path = Path(model.where or "")
    if not is_file(path):
        raise DeblurExportError(
            f"{shown(path)}: the original of {artifact.path.name} is not there; name it with "
            "--against FILE"
        )
    source = read_source(path)
    if source.sha256 != model.source_sha256:
        raise DeblurExportError(
            f"{shown(path)}: not the file that {artifact.path.name} was adopted from (SHA-256 "
            f"{source.sha256[:12]} instead of {shown(model.source_sha256)[:12]}); name that with "
            "--against FILE"
        )
    return _adopted(source, artifact, threads)


def against(artifact: Artifact, path: Path) -> OnnxReference:
    """A file that the user names as what an artifact should compute: one of ours, the original of
    an adopted file, or another that takes and gives images as that does.

    Raises:
        DeblurExportError: it is missing, not ONNX, or takes or gives other images.
    """
    if not is_file(path):
        raise DeblurExportError(f"{path}: no such file; --against takes an ONNX file")
    if path.samefile(artifact.path):
        raise DeblurExportError(f"{path}: --against is the file itself; name another")
    file = ModelFile(path)
    if any(entry.key == METADATA_KEY for entry in file.proto.metadata_props):
        return _ours(artifact, read_artifact(path))
    source = read_source(path)
    if artifact.manifest.model.origin == "onnx":
        return _adopted(source, artifact)
    inputs, outputs = free_inputs(source.proto), source.proto.graph.output
    if len(inputs) != 1 or len(outputs) != 1:
        raise DeblurExportError(
            f"{path}: --against takes a file with one image input and one output; adopt this one "
            "first, and name what that writes"
        )
    ends = Ends(inputs[0].name, outputs[0].name)
    note = f"{path.name} is taken to map RGB in 0..1 to RGB in 0..1, as {artifact.path.name} does"
    images = _any_size(artifact.manifest)
    return OnnxReference(source, source.float32, ends, images, (note,))


def _adopted(source: Source, artifact: Artifact, threads: int = 0) -> OnnxReference:
    manifest = artifact.manifest
    try:
        ends = Ends.from_dict(manifest.model.arguments)
    except DeblurExportError as error:
        raise DeblurExportError(f"{artifact.path}: {error}") from error
    names = {value.name for value in free_inputs(source.proto)}
    outputs = {value.name for value in source.proto.graph.output}
    if ends.input not in names or ends.output not in outputs:
        raise DeblurExportError(
            f"{source.path}: it has no input {shown(ends.input)} or no output "
            f"{shown(ends.output)}, as the file that {artifact.path.name} was adopted from"
        )
    notes: tuple[str, ...] = ()
    if source.sha256 != manifest.model.source_sha256:
        notes = (f"{source.path.name} is not the file that {artifact.path.name} was adopted from",)
    given, scale = manifest.input, manifest.output.scale
    images = ImageSpec(
        given.multiple,
        given.padding,
        channels=given.channels,
        scale=scale,
        minimum=given.minimum,
        square=given.square,
    )
    return OnnxReference(source, source.float32, ends, images, notes, threads)


def _ours(artifact: Artifact, other: Artifact) -> OnnxReference:
    mine, theirs = artifact.manifest, other.manifest
    if (mine.input.channels, mine.output.scale) != (theirs.input.channels, theirs.output.scale):
        raise DeblurExportError(
            f"{other.path}: {theirs.input.channels} channels and scale {theirs.output.scale}, and "
            f"{artifact.path.name} has {mine.input.channels} and {mine.output.scale}"
        )
    if theirs.precision != "fp32" or theirs.input.dtype != "float32":
        raise DeblurExportError(
            f"{other.path}: {theirs.precision} with {theirs.input.dtype} input; a reference is a "
            "float32 file"
        )
    ends = Ends(theirs.input.name, theirs.output.name)
    return OnnxReference(other, other.proto, ends, _any_size(theirs))


def _any_size(manifest: Manifest) -> ImageSpec:
    """Images of any size, as a graph accepts them that pads by itself."""
    given, scale = manifest.input, manifest.output.scale
    return ImageSpec(1, given.padding, channels=given.channels, scale=scale)
