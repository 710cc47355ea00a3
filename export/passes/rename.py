"""Name nodes and values after the modules that they come from.

A node becomes `<module>/<OpType>`. The output of a module is named like the module, so that Netron,
polygraphy and the layer comparison of this package show `encoders.3.5` instead of `add_417`.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"


def rename(model: ir.Model, modules: Mapping[str, str]) -> None:
    """Rename nodes, values and anonymous constants in place.

    This needs the metadata of the torch exporter, so it must run before `strip_metadata`.

    Args:
        model: as the torch exporter gives it.
        modules: the paths of the modules that values are outputs of, by the names that the values
            have; see `module_outputs`.
    """
    graph = model.graph
    scopes = _modules(graph)
    used = {value.name for value in (*graph.inputs, *graph.outputs)}
    outputs = set(graph.outputs)
    numbers: Counter[str] = Counter()
    for node in graph:
        base = f"{scopes[node]}/{node.op_type}" if scopes[node] else node.op_type
        node.name = f"{base}_{numbers[base]}" if numbers[base] else base
        numbers[base] += 1
        for position, value in enumerate(node.outputs):
            if value in outputs:
                continue
            name = modules.get(str(value.name))
            if name is None:
                name = f"{node.name}.{position}" if len(node.outputs) > 1 else node.name
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


def _rename_constants(graph: ir.Graph) -> None:
    """Name constants that are not parameters after the first node that reads them."""
    for name, value in list(graph.initializers.items()):
        uses = list(value.uses())
        if name.startswith("val_") and uses:
            user, position = uses[0]
            graph.initializers.pop(name)
            value.name = f"{user.name}.const{position}"
            graph.initializers[value.name] = value
