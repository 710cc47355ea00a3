"""Rewrites nodes of custom ops so that TensorRT's ONNX parser uses plugins for them.

If there are a plugin and a local function of the same name, the choice of the parser depends on its
release (onnx-tensorrt, `parseNode` in ModelImporter.cpp): before 10.7 it uses the function, before
10.15 the plugin, since then the plugin if the node names its namespace, otherwise the function.
Before 10.10 it does not search the node's domain for plugins (`FallbackPluginImporter` in
onnxOpImporters.cpp). With the namespace and without the function all releases use the plugin.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx

from deblur_export.artifact import METADATA_KEY, ModelFile
from deblur_export.atomic import atomic_path
from deblur_export.export.graph import copied
from deblur_export.export.ir_version import lower_ir_version
from deblur_export.plugins.function_body import DOMAIN, VERSION

ATTRIBUTES = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}
GRID = 4  # the input of MotionDeformConv that only its body reads


def use_plugins(model: onnx.ModelProto, plugins: Collection[str]) -> None:
    """Rewrite the nodes of the ops `plugins` in place, so that they need the plugins."""
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type in plugins:
            there = {attribute.name for attribute in node.attribute}
            node.attribute.extend(
                onnx.helper.make_attribute(name, value)
                for name, value in ATTRIBUTES.items()
                if name not in there
            )
            last = GRID if node.op_type == "MotionDeformConv" else None
            # The plugins tell from its rank which optional input is present; TensorRT does not
            # document how it treats an input with an empty name.
            inputs = [name for name in node.input[:last] if name]
            del node.input[:]
            node.input.extend(inputs)
    read = {name for node in model.graph.node for name in node.input}
    nodes = [n for n in model.graph.node if n.op_type != "SamplingGrid" or read & {*n.output}]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    functions = [function for function in model.functions if function.name not in plugins]
    del model.functions[:]
    model.functions.extend(functions)


def plugin_form(model: onnx.ModelProto, plugins: Collection[str]) -> onnx.ModelProto:
    """A copy of a model, rewritten by `use_plugins`, of the lowest IR version that it needs."""
    copy = copied(model)
    use_plugins(copy, plugins)
    return lower_ir_version(copy)


def write_plugin_form(source: ModelFile, plugins: Collection[str], target: Path) -> None:
    """Write the file `source`, rewritten by `use_plugins`, to `target`. It is for TensorRT only and
    therefore carries no manifest."""
    model = plugin_form(source.proto, plugins)
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    with atomic_path(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
