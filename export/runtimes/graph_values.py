"""Values inside an ONNX file: their names, and copies of the file that return them."""

from __future__ import annotations

from pathlib import Path

import onnx


def with_outputs(path: Path, names: tuple[str, ...]) -> bytes:
    """The file as bytes, with the inner values `names` as further outputs."""
    return extended(path, names).SerializeToString()  # type: ignore[no-any-return]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The bodies of the custom ops in place of their nodes."""
    from onnx.inliner import inline_local_functions

    return inline_local_functions(model)


def extended(path: Path, names: tuple[str, ...]) -> onnx.ModelProto:
    model = onnx.load(path)
    known = {info.name: info for info in model.graph.value_info}
    model.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    return model


def inner_values(path: Path) -> list[str]:
    """Names of the values of the main graph, in execution order."""
    model = onnx.load(path, load_external_data=False)
    return [name for node in model.graph.node for name in node.output]
