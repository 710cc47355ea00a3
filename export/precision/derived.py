"""A file of ours that is made of another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from deblur_export.errors import DeblurExportError
from deblur_export.export.to_onnx import save
from deblur_export.manifest import Artifact, file_sha256, sidecar_path, write_sidecar


def require_float32(artifact: Artifact, wanted: str) -> None:
    """What other precisions are made of; `wanted` says which, for the message.

    Raises:
        DeblurExportError: the file is in another precision, or its input is.
    """
    own, dtype = artifact.manifest["precision"], artifact.manifest["input"].get("dtype", "float32")
    if own != "fp32" or dtype != "float32":
        detail = "" if dtype == "float32" else f" with {dtype} input"
        raise DeblurExportError(
            f"{artifact.path} is {own}{detail} and cannot become {wanted}: start from a float32 "
            "file, deblur-export onnx without --precision and --io"
        )


def write_derived(
    artifact: Artifact, graph: ir.Model, facts: Mapping[str, Any], path: Path
) -> Artifact:
    """Check and write a graph under the manifest of the file that it was made of.

    Args:
        artifact: that file; its parity figures are not those of the graph.
        graph: what to write.
        facts: entries of the manifest that are new or replace others.
        path: the .onnx file to write; its manifest goes beside it.

    Raises:
        DeblurExportError: the graph is not valid, or the file cannot be written.
    """
    inside = {k: v for k, v in artifact.manifest.items() if k not in ("file", "parity")}
    inside |= facts
    sidecar_path(path).unlink(missing_ok=True)
    save(graph, path, inside)
    manifest = inside | {"file": {"sha256": file_sha256(path), "bytes": path.stat().st_size}}
    write_sidecar(path, manifest)
    return Artifact(path, manifest)
