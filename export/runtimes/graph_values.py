"""Values inside an ONNX model: their names, and copies of the model that return them."""

from __future__ import annotations

import onnx
from onnx.inliner import inline_local_functions


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the bodies of the custom ops in place of their nodes."""
    return inline_local_functions(model)


def extended(model: onnx.ModelProto, names: tuple[str, ...]) -> onnx.ModelProto:
    """A copy with the inner values `names` as further outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {info.name: info for info in model.graph.value_info}
    copy.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    return copy


def inner_values(model: onnx.ModelProto) -> list[str]:
    """Names of the values of the main graph, in execution order."""
    return [name for node in model.graph.node for name in node.output]
