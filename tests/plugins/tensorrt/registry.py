"""A process of its own: what the registry of one of the TensorRTs makes of a plugin library.

    python registry.py MODULE LIBRARY FOLDER [merely-loaded]

With merely-loaded the library is loaded by another hand before the registry is told of it. FOLDER
has an ONNX file of one node per op. Prints JSON: the creators, which of them make a plugin of their
node's attributes, and what the ONNX parser says of each node where the module has one.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx


def creators(registry: Any) -> list[str]:
    return sorted(c.name for c in registry.all_creators if c.plugin_namespace == "deblur")


def created(trt: Any, registry: Any, node: onnx.NodeProto) -> bool:
    kind = trt.PluginFieldType.INT32
    fields = [trt.PluginField(a.name, np.array([a.i], np.int32), kind) for a in node.attribute]
    creator = registry.get_creator(node.op_type, "1", "deblur")
    collection = trt.PluginFieldCollection(fields)
    plugin = creator.create_plugin("layer", collection, trt.TensorRTPhase.BUILD)
    if plugin is None:
        return False
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    return bool((core.plugin_name, core.plugin_namespace) == (node.op_type, "deblur"))


def parsed(trt: Any, model: onnx.ModelProto) -> str:
    """What the parser logs. TensorRT for RTX ends the process when it adds a plugin to a network,
    so that a child does it."""
    node = model.graph.node[0]
    node.attribute.append(onnx.helper.make_attribute("plugin_namespace", "deblur"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        log = trt.Logger(trt.Logger.INFO)
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = trt.Builder(log).create_network(flag)
        trt.OnnxParser(network, log).parse(model.SerializeToString())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, errors="replace", encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


def main(module: str, library: str, folder: Path, merely_loaded: bool) -> dict[str, Any]:
    trt = importlib.import_module(module)
    registry = trt.get_plugin_registry()
    if merely_loaded:
        ctypes.CDLL(library)
    registered_itself = creators(registry)
    handle = registry.load_library(library)
    result: dict[str, Any] = {
        "registered_itself": registered_itself,
        "loaded": handle is not None,
        "creators": creators(registry),
    }
    models = {file.stem: onnx.load(file) for file in sorted(folder.glob("*.onnx"))}
    nodes = {name: model.graph.node[0] for name, model in models.items()}
    result["created"] = [op for op in nodes if created(trt, registry, nodes[op])]
    if hasattr(trt, "OnnxParser"):
        result["parsed"] = {op: parsed(trt, model) for op, model in models.items()}
    registry.deregister_library(handle)
    result["left"] = creators(registry)
    return result


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), len(sys.argv) > 4)))
