"""Name nodes and values after the modules that they come from.

A node becomes `<module>/<OpType>`. The output of a module is named like the module, so that Netron,
polygraphy and the layer comparison of this package show `encoders.3.5` instead of `add_417`.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"


def rename(model: ir.Model) -> None:
    """Rename nodes, values and anonymous constants in place.

    This needs the metadata of the torch exporter, so it must run before `strip_metadata`.
    """
    graph = model.graph
    scopes = _modules(graph)
    used = {value.name for value in (*graph.inputs, *graph.outputs)}
    outputs = set(graph.outputs)
    module_outputs = _module_outputs(graph, scopes)
    numbers: Counter[str] = Counter()
    for node in graph:
        base = f"{scopes[node]}/{node.op_type}" if scopes[node] else node.op_type
        node.name = f"{base}_{numbers[base]}" if numbers[base] else base
        numbers[base] += 1
        for position, value in enumerate(node.outputs):
            if value in outputs:
                continue
            name = scopes[node] if value in module_outputs else node.name
            if len(node.outputs) > 1:
                name = f"{name}.{position}"
            value.name = name if name not in used else f"{node.name}.out"
            used.add(value.name)
    _rename_constants(graph)


def _modules(graph: ir.Graph) -> dict[ir.Node, str]:
    """Dotted path of the module whose forward created each node; "" for the network itself.

    Nodes inserted by the exporter's optimizer have no scope; they belong to their first user.
    """
    modules: dict[ir.Node, str] = {}
    for node in reversed(graph):
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
        if len(scopes) > 1 and not scopes[-2].startswith("_empty_nn_module"):
            modules[node] = scopes[-2]
        else:
            users = (user for value in node.outputs for user, _ in value.uses())
            modules[node] = modules.get(next(users, node), "")
    return modules


def _module_outputs(graph: ir.Graph, scopes: dict[ir.Node, str]) -> set[ir.Value]:
    """For each module, its last tensor that is used outside the module.

    It is a floating-point tensor if there is one, or else a tensor of pixel indices, which has a
    batch axis.
    """
    indices: dict[str, ir.Value] = {}
    last: dict[str, ir.Value] = {}
    for node in graph:
        module = scopes[node]
        for value in node.outputs:
            users = [scopes[user] for user, _ in value.uses()]
            outside = any(user != module and not user.startswith(f"{module}.") for user in users)
            if outside and value.dtype is not None and value.dtype.is_floating_point():
                last[module] = value
            elif outside and value.shape is not None and len(value.shape) > 1:
                indices[module] = value
    last = indices | last
    last.pop("", None)
    return set(last.values())


def _rename_constants(graph: ir.Graph) -> None:
    """Name constants that are not parameters after the first node that reads them."""
    for name, value in list(graph.initializers.items()):
        uses = list(value.uses())
        if name.startswith("val_") and uses:
            user, position = uses[0]
            graph.initializers.pop(name)
            value.name = f"{user.name}.const{position}"
            graph.initializers[value.name] = value
