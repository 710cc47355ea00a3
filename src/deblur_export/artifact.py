"""Exported files: an ONNX file or an engine with its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx

from deblur_export.atomic import atomic_path
from deblur_export.edited_file import check_interface, described
from deblur_export.errors import DeblurExportError
from deblur_export.file_names import is_file
from deblur_export.manifest import Manifest
from deblur_export.manifest_blocks import FileRecord, ParityRecord
from deblur_export.onnx_reading import read_onnx

METADATA_KEY = "deblur_export"
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file or an engine, which is parsed and hashed at most once."""

    path: Path

    @cached_property
    def _read(self) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
        return read_onnx(self.path)

    @property
    def proto(self) -> onnx.ModelProto:
        """The parsed ONNX file with all of its weights. All readers share it: copy it before a
        change.

        Raises:
            DeblurExportError: see `onnx_reading.read_onnx`.
        """
        return self._read[0]

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files beside an ONNX file that hold weights of it; none of an engine."""
        return () if self.path.suffix.lower() in ENGINE_SUFFIXES else self._read[1]

    @property
    def content(self) -> bytes:
        """What is in the file, with all of its weights, for libraries that parse bytes."""
        return self.proto.SerializeToString() if self.weight_files else self.path.read_bytes()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file and of its `weight_files`, in hexadecimal."""
        return file_sha256(self.path, *self.weight_files)


@dataclass(frozen=True)
class Artifact(ModelFile):
    """An exported ONNX file, or an engine, and its manifest.

    Attributes:
        notes: lines for the user about how file and manifest belong together.
    """

    manifest: Manifest
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.manifest.title

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is read from: the file, its sidecar, external data and, where they are
        in a file, the weights of its PyTorch network."""
        weights = Path(self.manifest.weights.source)
        return (self.path, sidecar_path(self.path), *self.weight_files, weights)

    def recorded(self, parity: ParityRecord | None = None) -> Artifact:
        """Put the hash and size of the file into the manifest, and write that beside the file.

        Args:
            parity: a verification of this file that passed.

        Raises:
            DeblurExportError: the manifest cannot be written.
        """
        file = FileRecord(self.sha256, self.path.stat().st_size)
        manifest = replace(self.manifest, file=file, parity=parity)
        write_sidecar(self.path, manifest)
        return Artifact(self.path, manifest)


def sidecar_path(path: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return path.with_name(path.name + ".json")


def with_sidecar(what: str, path: Path) -> tuple[tuple[str, Path], tuple[str, Path]]:
    """An exported file and its sidecar, for `outputs.check_outputs`; `what` names the file."""
    return (what, path), (f"the manifest of {what}", sidecar_path(path))


def file_sha256(*paths: Path) -> str:
    """SHA-256 of a file, or of several one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_sidecar(path: Path, manifest: Manifest) -> None:
    """Write `<path>.json`, completely or not at all."""
    with atomic_path(sidecar_path(path)) as temporary:
        temporary.write_text(manifest.to_json(indent=2) + "\n", encoding="utf-8")


def read_artifact(path: Path) -> Artifact:
    """Open an exported ONNX file and read its manifest.

    The manifest inside the file rules, with the hash and the parity figures of the one beside it if
    that has the SHA-256 of the file. If it has not, an edit came after the export. Where the edit
    dropped or damaged the manifest inside, the one beside the file takes its place. The notes of
    the artifact say so, and opset and custom ops are then those of the graph.

    Raises:
        DeblurExportError: the file is missing, not ONNX or damaged, not written by this package or
            by another version of it, its input or output is not that of its manifest, or the
            manifest beside it is damaged.
    """
    if not is_file(path):
        raise DeblurExportError(f"{path}: no such file; make one with deblur-export onnx")
    file, sidecar = ModelFile(path), sidecar_path(path)
    inside, beside = _inside(path, file.proto), None
    if is_file(sidecar):
        beside = read_sidecar(sidecar, "a manifest", "delete it or export again")
    if beside is None or beside.engine is not None:
        if isinstance(inside, DeblurExportError):
            raise inside
        return _known(file, inside, ())
    manifest = beside if isinstance(inside, DeblurExportError) else inside
    if beside.file is not None and beside.file.sha256 == file.sha256:
        return _known(file, replace(manifest, file=beside.file, parity=beside.parity), ())
    found = f"its SHA-256 is not that in {sidecar.name}"
    if isinstance(inside, DeblurExportError):
        found = f"the manifest inside is gone or damaged, and {sidecar.name} takes its place"
    note = f"{path.name} was edited after its export ({found}); deblur-export verify judges it"
    return _known(file, described(manifest.derived(), file.proto), (note,))


def _inside(path: Path, model: onnx.ModelProto) -> Manifest | DeblurExportError:
    """The manifest in the metadata of an ONNX file, or what is wrong with it."""
    embedded = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY)
    if embedded is None:
        return DeblurExportError(
            f"{path}: not written by deblur-export, or a tool has dropped its metadata, so its "
            "input and its PyTorch counterpart are unknown; export it with deblur-export onnx, "
            "adopt the file of another exporter with deblur-export adopt, or copy the .json of the "
            f"exported file to {sidecar_path(path).name}"
        )
    try:
        return Manifest.from_json(embedded, path)
    except DeblurExportError as error:
        return error


def _known(file: ModelFile, manifest: Manifest, notes: tuple[str, ...]) -> Artifact:
    """The artifact, with the parsed file and the hash that are already known.

    Raises:
        DeblurExportError: see `edited_file.check_interface`.
    """
    check_interface(file.path, manifest, file.proto)
    artifact = Artifact(file.path, manifest, (*manifest.notes, *notes))
    vars(artifact).update({name: vars(file)[name] for name in vars(file) if name != "path"})
    return artifact


def read_sidecar(sidecar: Path, what: str, advice: str) -> Manifest:
    """The manifest in a .json file; `what` and `advice` as of `Manifest.from_json`.

    Raises:
        DeblurExportError: it cannot be read, or is no manifest.
    """
    try:
        content = sidecar.read_bytes()
    except OSError as error:
        raise DeblurExportError(f"{sidecar}: cannot be read: {error.strerror}; {advice}") from error
    return Manifest.from_json(content, sidecar, what, advice)
