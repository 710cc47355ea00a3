"""Convert input and output of a file to float16, which halves the transfer to and from a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import graph_of
from deblur_export.export.to_onnx import save

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def half_io_file(artifact: Artifact, path: Path) -> Artifact:
    """Write a file with float16 input and output; `path` may be that of the file itself.

    Raises:
        DeblurExportError: the input and output are float16 already, or the file cannot be written.
    """
    if has_half_io(artifact):
        raise DeblurExportError(f"{artifact.path} has float16 input and output already")
    graph = graph_of(artifact)
    to_half_io(graph)
    manifest = artifact.manifest
    ends = {
        "input": replace(manifest.input, dtype="float16"),
        "output": replace(manifest.output, dtype="float16"),
    }
    return save(graph, path, manifest.derived(**ends))


def has_half_io(artifact: Artifact) -> bool:
    return artifact.manifest.input.dtype == "float16"


def to_half_io(model: ir.Model) -> None:
    """Change float32 inputs and outputs to float16, in place; they keep their names.

    Nodes that used the input rounded to float16 use it directly, and all others through a Cast.
    """
    graph = model.graph
    for value in graph.inputs:
        if value.dtype == FLOAT:
            _retype_input(graph, value)
    for index, inner in enumerate(graph.outputs):
        if inner.dtype != FLOAT:
            continue
        outer = ir.Value(name=inner.name, shape=inner.shape, type=ir.TensorType(HALF))
        inner.name = f"{outer.name}/float"
        to = ir.AttrInt64("to", int(HALF))
        graph.append(ir.Node("", "Cast", [inner], [to], outputs=[outer], name=f"{outer.name}/Cast"))
        graph.outputs[index] = outer


def _retype_input(graph: ir.Graph, value: ir.Value) -> None:
    users = list(value.uses())
    value.type = ir.TensorType(HALF)
    exact: list[tuple[ir.Node, int]] = []
    for node, index in users:
        if node.op_type == "Cast" and node.outputs[0].dtype == HALF:
            node.outputs[0].replace_all_uses_with(value)
            graph.remove(node, safe=True)
        else:
            exact.append((node, index))
    if not exact:
        return
    to = ir.AttrInt64("to", int(FLOAT))
    cast = ir.Node("", "Cast", [value], [to], name=f"{value.name}/Cast")
    result = cast.outputs[0]
    result.name, result.type = f"{value.name}/float", ir.TensorType(FLOAT)
    result.shape = value.shape
    graph.insert_before(graph[0], cast)
    for node, index in exact:
        node.replace_input_with(index, result)
