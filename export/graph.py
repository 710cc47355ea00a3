"""Conversions between the two representations of ONNX graphs, which happen only here.

Graphs are changed in the representation of onnx-ir. ONNX's own messages (ModelProto) are loaded by
ONNX Runtime and OpenVINO, and read by ONNX's checker, shape inference and inliner. A parsed file is
a message that its readers share, so that the functions here copy before they change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.inliner import inline_local_functions

from deblur_export.artifact import ModelFile
from deblur_export.export.ir_version import lower_ir_version


def graph_of(model: ModelFile | onnx.ModelProto) -> ir.Model:
    """The graph of a file or message, which may be changed: it shares nothing with its source.

    Raises:
        DeblurExportError: the file is not ONNX.
    """
    return ir.from_proto(copied(model.proto if isinstance(model, ModelFile) else model))


def message_of(graph: ir.Model) -> onnx.ModelProto:
    """A graph as ONNX's message, of the lowest IR version that it needs."""
    return lower_ir_version(ir.to_proto(graph))


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a message, which may be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the function bodies of the custom ops replace their nodes."""
    return inline_local_functions(model)


def inlined_path(path: Path) -> Path:
    """Where the file with inlined ops is: `net.onnx` -> `net.inlined.onnx`."""
    return path.with_name(f"{path.stem}.inlined{path.suffix}")


def with_outputs(
    model: onnx.ModelProto, names: Sequence[str], instead: bool = False
) -> onnx.ModelProto:
    """A copy with the values `names` of the main graph as further outputs, or `instead` of its
    own."""
    copy = copied(model)
    known = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    if instead:
        del copy.graph.output[:]
    copy.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    return copy


def inner_values(model: onnx.ModelProto) -> list[str]:
    """Names of the intermediate values and outputs of the main graph, in execution order."""
    return [name for node in model.graph.node for name in node.output]
