"""A float32 graph or file to a typed one, with the proof that it is and what its manifest says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir

from deblur_export.artifact import Artifact
from deblur_export.export.graph import graph_of
from deblur_export.export.precision.cast import Casting, lower_precision
from deblur_export.export.precision.derived import require_float32
from deblur_export.export.precision.proof import check_precision
from deblur_export.export.to_onnx import save
from deblur_export.manifest import MultiplyAdds, PrecisionMap, WeightCounts
from deblur_export.precision import GraphPrecision
from deblur_export.target import TARGETS, TargetName

# The finished float32 graph -> names of values that stay float32, and why.
KeepRule = Callable[[ir.Model], Mapping[str, str]]


def keep_nothing(graph: ir.Model) -> Mapping[str, str]:
    """The policy of `precision.policy` alone."""
    return {}


def typed(
    graph: ir.Model, precision: GraphPrecision, target: TargetName, keep: Mapping[str, str]
) -> tuple[ir.Model, PrecisionMap]:
    """`lower_precision`, proved; returns the graph and what its manifest says of it.

    Raises:
        DeblurExportError: a weight is out of the range of the precision.
        CheckFailedError: too little of the graph is in the precision.
    """
    lowered, casting = lower_precision(graph, precision, target, keep)
    refused = TARGETS[target].refused.get(precision, {})
    proof = check_precision(lowered, precision, refused=refused)
    return lowered, _map(casting, proof.rounded())


def typed_artifact(
    artifact: Artifact, precision: GraphPrecision, path: Path, keep: KeepRule = keep_nothing
) -> Artifact:
    """Write a float32 file of ours anew in another precision.

    Args:
        artifact: in float32.
        precision: fp16 or bf16.
        path: the .onnx file to write; its manifest goes beside it.
        keep: what stays float32 besides the policy's nodes.

    Raises:
        DeblurExportError, CheckFailedError: as `typed`; also if the file is not float32.
    """
    require_float32(artifact, precision)
    graph = graph_of(artifact)
    manifest = artifact.manifest
    lowered, facts = typed(graph, precision, manifest.target, keep(graph))
    changed = manifest.derived(precision=precision, high_precision=precision, precision_map=facts)
    return save(lowered, path, changed)


def _map(casting: Casting, proof: MultiplyAdds) -> PrecisionMap:
    kept = {reason: tuple(names) for reason, names in casting.kept.items()}
    return PrecisionMap(
        multiply_adds=proof,
        nodes={casting.precision: casting.lowered, "fp32": sum(map(len, kept.values()))},
        kept_fp32=kept,
        weights=WeightCounts(casting.weights, casting.flushed, casting.subnormal),
    )
