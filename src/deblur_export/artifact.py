"""Exported files: an ONNX file or an engine with its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.manifest import FileRecord, Manifest, ParityRecord

METADATA_KEY = "deblur_export"


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file or an engine, which is parsed and hashed at most once."""

    path: Path

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The parsed ONNX file. All readers share it: copy it before a change.

        Raises:
            DeblurExportError: the file is not ONNX.
        """
        try:
            return onnx.load(self.path, load_external_data=False)
        except Exception as error:  # protobuf raises several unrelated types
            raise DeblurExportError(f"{self.path}: not an ONNX file, or a damaged one") from error

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return file_sha256(self.path)


@dataclass(frozen=True)
class Artifact(ModelFile):
    """An exported ONNX file, or an engine, and its manifest."""

    manifest: Manifest

    @property
    def title(self) -> str:
        return self.manifest.title

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is read from: the file, its sidecar, external data and, where they are
        in a file, the weights of its PyTorch network."""
        outside: set[Path] = set()
        if self.manifest.engine is None:
            stored = (
                entry for tensor in self.proto.graph.initializer for entry in tensor.external_data
            )
            outside = {
                self.path.parent / entry.value for entry in stored if entry.key == "location"
            }
        weights = Path(self.manifest.weights.source)
        return (self.path, sidecar_path(self.path), *sorted(outside), weights)

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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
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

    Raises:
        DeblurExportError: the file is missing, not ONNX, not written by this package or by another
            version of it, or was changed since its sidecar was written.
    """
    if not path.is_file():
        raise DeblurExportError(f"{path}: no such file; make one with deblur-export onnx")
    file = ModelFile(path)
    embedded = {entry.key: entry.value for entry in file.proto.metadata_props}.get(METADATA_KEY)
    if embedded is None:
        raise DeblurExportError(
            f"{path}: not written by deblur-export, so its input and its PyTorch counterpart are "
            "unknown; export it with deblur-export onnx"
        )
    manifest, sidecar = Manifest.from_json(embedded, path), sidecar_path(path)
    if not sidecar.is_file():
        return _known(file, manifest)
    beside = read_sidecar(sidecar, "a manifest", "delete it or export again")
    if beside.file is None or beside.file.sha256 != file.sha256:
        raise DeblurExportError(
            f"{path} is not the file that {sidecar.name} describes (SHA-256 differs); "
            "export again, or delete the .json if the change is meant"
        )
    return _known(file, replace(manifest, file=beside.file, parity=beside.parity))


def _known(file: ModelFile, manifest: Manifest) -> Artifact:
    """The artifact, with the parsed file and the hash that are already known."""
    artifact = Artifact(file.path, manifest)
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
