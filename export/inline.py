"""Writes a second form of a file, for clients that know neither our ops nor ONNX's functions.

Stock OpenVINO, in any language, is such a client. A file with ops stays the better one for every
other: our native kernels take the place of its nodes.
"""

from __future__ import annotations

from pathlib import Path

from deblur_export.artifact import Artifact
from deblur_export.export.graph import graph_of, inlined
from deblur_export.export.to_onnx import remove_unused_nodes, save
from deblur_export.plugins.function_body import DOMAIN


def inlined_file(artifact: Artifact, path: Path) -> Artifact:
    """Write a file in which standard operators stand in place of the custom ops.

    Args:
        artifact: an exported file, in any precision.
        path: the .onnx file to write; its manifest, without custom ops, is written beside it.

    Raises:
        DeblurExportError: the graph is not valid, or the file cannot be written.
    """
    graph = graph_of(inlined(artifact.proto))
    graph.opset_imports.pop(DOMAIN, None)
    graph.graph.opset_imports.pop(DOMAIN, None)
    remove_unused_nodes(graph)
    return save(graph, path, artifact.manifest.derived(custom_ops=()))
