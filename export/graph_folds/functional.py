"""Replace in-place operators of a captured graph by those that give a new tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def make_functional(graph: fx.Graph) -> set[fx.Node]:
    """Replace each in-place call whose input nothing reads afterwards, such as ReLU(inplace=True).

    Returns:
        The nodes whose memory the other in-place calls may write into; their values change.
    """
    for node in list(graph.nodes):
        plain = _plain(node)
        if plain is None or set(node.args[0].users) != {node} or _is_view(node.args[0]):
            continue
        if node.args[0].op == "call_function":
            node.target = plain
    return _written(graph)


def _plain(node: fx.Node) -> Any:
    """The operator that computes what an in-place one writes: relu for relu_; None without one."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    namespace, _, name = target._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    plain = getattr(packet, target._overloadname, None) if name.endswith("_") else None
    if plain is None or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    same = [a.name for a in plain._schema.arguments] == [a.name for a in target._schema.arguments]
    return plain if same and not plain._schema.is_mutable else None


def _is_view(node: fx.Node) -> bool:
    """Whether a node shares its memory with another one."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function"
    return any(argument.alias_info is not None for argument in target._schema.arguments)


def _written(graph: fx.Graph) -> set[fx.Node]:
    """All nodes that may share memory with the input of an in-place call."""
    groups: dict[fx.Node, set[fx.Node]] = {}
    written: list[fx.Node] = []
    for node in graph.nodes:
        groups[node] = {node}
        target = node.target
        if node.op != "call_function":
            continue
        if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable:
            written.append(node)
        if _is_view(node):
            for other in node.all_input_nodes:
                groups[other] |= groups[node]
                for member in groups[other]:
                    groups[member] = groups[other]
    return {member for node in written for member in groups[node]}
