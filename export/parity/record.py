"""Keeps the figures of a passed verification in the manifest beside the artifact."""

from __future__ import annotations

import contextlib

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.parity.report import ParityReport
from deblur_export.manifest_blocks import ParityRecord


def record_parity(artifact: Artifact, report: ParityReport) -> None:
    """Keep the figures of a passed verification in the sidecar; best effort.

    Verification must not fail because the artifact lies on a read-only disk.
    """
    parity = ParityRecord(
        reference=report.reference,
        candidate=report.candidate,
        cases=len(report.cases),
        max_abs=max(case.max_abs for case in report.cases),
    )
    with contextlib.suppress(DeblurExportError):
        artifact.recorded(parity)
