"""Keeps the figures of a passed verification in the manifest beside the artifact."""

from __future__ import annotations

import contextlib

from deblur_export.errors import DeblurExportError
from deblur_export.export.parity.report import ParityReport
from deblur_export.manifest import Artifact, file_sha256, write_sidecar


def record_parity(artifact: Artifact, report: ParityReport) -> None:
    """Keep the figures of a passed verification in the sidecar; best effort.

    Verification must not fail because the artifact lies on a read-only disk.
    """
    parity = {
        "reference": report.reference,
        "candidate": report.candidate,
        "cases": len(report.cases),
        "max_abs": max(case.max_abs for case in report.cases),
    }
    file = {"sha256": file_sha256(artifact.path), "bytes": artifact.path.stat().st_size}
    with contextlib.suppress(DeblurExportError):
        write_sidecar(artifact.path, artifact.manifest | {"file": file, "parity": parity})
