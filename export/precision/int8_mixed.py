"""Convert the float32 part of an int8 file to float16 or bfloat16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import graph_of, message_of
from deblur_export.export.precision.int8_check import check_int8, int8_nodes
from deblur_export.export.precision.typed import typed
from deblur_export.export.to_onnx import save
from deblur_export.precision import GraphPrecision


def lower_high_precision(artifact: Artifact, precision: GraphPrecision, path: Path) -> Artifact:
    """Write a copy of an int8 file whose float32 part is in another precision.

    Args:
        artifact: a file of `calibrate`, in float32 around its QDQ pairs.
        precision: fp16 or bf16.
        path: the .onnx file to write.

    Raises:
        DeblurExportError: the file is not of that kind, or a weight is out of the range of the
            precision.
        CheckFailedError: a convolution lost its QDQ pairs, or too little is in the precision.
    """
    manifest = artifact.manifest
    if (manifest.precision, manifest.high_precision) != ("int8", "fp32"):
        raise DeblurExportError(
            f"{artifact.path} cannot become int8+{precision}: start from a file of deblur-export "
            "calibrate"
        )
    graph = graph_of(artifact)
    lowered, facts = typed(graph, precision, manifest.target, {})
    check_int8(message_of(lowered), int8_nodes(artifact.proto))
    assert manifest.precision_map is not None
    whole = replace(manifest.precision_map, high_precision=facts)
    return save(lowered, path, manifest.derived(high_precision=precision, precision_map=whole))
