"""Convert a float32 graph or file to a typed one, verify it and describe it in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from deblur_export.artifact import Artifact
from deblur_export.errors import CheckFailedError
from deblur_export.export.graph import graph_of
from deblur_export.export.precision.cast import Casting, lower_precision
from deblur_export.export.precision.check import check_precision
from deblur_export.export.precision.derived import require_float32
from deblur_export.export.precision.policy import LINEAR
from deblur_export.export.precision.ranges import HeadroomRule, nothing_known, too_close
from deblur_export.export.to_onnx import save
from deblur_export.manifest_blocks import MultiplyAdds, PrecisionMap, WeightCounts
from deblur_export.precision import GraphPrecision
from deblur_export.shown import shown
from deblur_export.target import TARGETS, TargetName


def typed(
    graph: ir.Model, precision: GraphPrecision, target: TargetName, keep: Mapping[str, str]
) -> tuple[ir.Model, PrecisionMap]:
    """Apply `lower_precision` and check the precision of the result.

    Returns:
        The graph, and its precision map for the manifest.

    Raises:
        DeblurExportError: a weight exceeds the range of the precision.
        CheckFailedError: too small a fraction of the graph is in the precision.
    """
    lowered, casting = lower_precision(graph, precision, target, keep)
    refused = TARGETS[target].refused.get(precision, {})
    try:
        check = check_precision(lowered, precision, refused=refused)
    except CheckFailedError as error:
        raise CheckFailedError(f"{error}{_stays(graph, casting)}") from error
    return lowered, _map(casting, check.rounded())


def _stays(graph: ir.Model, casting: Casting) -> str:
    """Which convolutions stay in float32, and why, for a message."""
    linear = {node.name for node in graph.graph if node.op_type in LINEAR}
    reasons = [
        f"{reason} ({shown(', '.join(own[:2]))}{', ...' * (len(own) > 2)})"
        for reason, names in casting.kept.items()
        if (own := [name for name in names if name in linear])
    ]
    return f"; layers that stay in float32: {'; '.join(reasons)}" if reasons else ""


def typed_artifact(
    artifact: Artifact,
    precision: GraphPrecision,
    path: Path,
    headrooms: HeadroomRule = nothing_known,
) -> Artifact:
    """Convert an exported float32 file to another precision.

    Args:
        artifact: a float32 file.
        precision: fp16 or bf16.
        path: the .onnx file to write; its manifest is written beside it.
        headrooms: tells which tensors are close to the largest float16; in fp16 they stay float32.

    Raises:
        DeblurExportError, CheckFailedError: as `typed`; also if the file is not float32.
    """
    require_float32(artifact, precision)
    graph = graph_of(artifact)
    manifest = artifact.manifest
    keep = too_close(headrooms(graph))
    lowered, precision_map = typed(graph, precision, manifest.target, keep)
    changed = manifest.derived(
        precision=precision, high_precision=precision, precision_map=precision_map
    )
    return save(lowered, path, changed)


def _map(casting: Casting, check: MultiplyAdds) -> PrecisionMap:
    kept = {reason: tuple(names) for reason, names in casting.kept.items()}
    return PrecisionMap(
        multiply_adds=check,
        nodes={casting.precision: casting.lowered, "fp32": sum(map(len, kept.values()))},
        kept_fp32=kept,
        weights=WeightCounts(casting.weights, casting.flushed, casting.subnormal),
    )
