"""The manifest of an artifact: what it computes, from which weights, and what it wants as input.

The manifest travels inside the ONNX file (metadata) and, with the file's own hash and later its
parity figures, in `<file>.json` beside it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError

METADATA_KEY = "deblur_export"
FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    """An exported ONNX file and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def title(self) -> str:
        return f"{self.manifest['model']}:{self.manifest['variant']}"


def sidecar_path(path: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return path.with_name(path.name + ".json")


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sidecar(path: Path, manifest: dict[str, Any]) -> None:
    """Write `<path>.json`, replacing it whole or not at all."""
    with atomic_path(sidecar_path(path)) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_artifact(path: Path) -> Artifact:
    """Open an ONNX file of ours; weights are not parsed twice.

    Raises:
        DeblurExportError: missing, not ONNX, not ours, written by a newer version, or changed
            since its sidecar was written.
    """
    if not path.is_file():
        raise DeblurExportError(f"{path}: no such file; make one with deblur-export onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises several unrelated types
        raise DeblurExportError(f"{path}: not an ONNX file, or a damaged one") from error
    embedded = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY)
    if embedded is None:
        raise DeblurExportError(
            f"{path}: not written by deblur-export, so its input and its PyTorch counterpart are "
            "unknown; export it with deblur-export onnx"
        )
    manifest = json.loads(embedded)
    if manifest.get("format") != FORMAT:
        raise DeblurExportError(
            f"{path}: manifest format {manifest.get('format')} is not {FORMAT}; "
            "use the deblur-export version that wrote it, or export again"
        )
    return Artifact(path, manifest | _read_sidecar(path))


def _read_sidecar(path: Path) -> dict[str, Any]:
    """What only the sidecar knows; empty without one."""
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        recorded = content["file"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DeblurExportError(f"{sidecar}: not a manifest; delete it or export again") from error
    if recorded != file_sha256(path):
        raise DeblurExportError(
            f"{path} is not the file that {sidecar.name} describes (SHA-256 differs); "
            "export again, or delete the .json if the change is meant"
        )
    return {key: content[key] for key in ("file", "parity") if key in content}
