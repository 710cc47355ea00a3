"""Adds nodes to the graph of an exported program, each with the value that torch expects of it."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

aten = torch.ops.aten
Size = int | Node  # of an axis; a node where it is free
COPIED = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")


class Emitter:
    """Adds nodes before the node `self.place`, whose module and line of code they get."""

    place: Node

    def __init__(self, program: ExportedProgram) -> None:
        self.graph = program.graph_module.graph
        values = [n.meta["val"] for n in self.graph.nodes if n.op == "placeholder"]
        self.fake_mode = detect_fake_mode(values)

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        """A new node and the fake tensor of its result."""
        with self.graph.inserting_before(self.place):
            node: Node = self.graph.call_function(target, args, kwargs)
        node.meta = {key: self.place.meta[key] for key in COPIED if key in self.place.meta}
        values = torch.fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
        with self.fake_mode or contextlib.nullcontext():
            node.meta["val"] = target(*values[0], **values[1])
        return node

    def item(self, node: Node, index: int) -> Node:
        """One of several outputs."""
        return self.call(operator.getitem, node, index)

    def size(self, node: Node, axis: int) -> Size:
        """The extent of one axis."""
        size, place = (
            node.meta["val"].shape[axis],
            axis % rank(node),
        )  # torch.onnx reads it as it is
        return size if isinstance(size, int) else self.call(aten.sym_size.int, node, place)

    def arithmetic(self, target: Callable[[Any, Any], Any], a: Size, b: Size) -> Size:
        """An operator of the module `operator` on sizes."""
        if isinstance(a, int) and isinstance(b, int):
            return int(target(a, b))
        return self.call(target, a, b)

    def resized(self, node: Node, axis: int, size: Size) -> Node:
        """`node` cut or filled with zeros at the end of one axis; itself where it fits."""
        axis %= rank(node)
        own = self.size(node, axis)
        given, wanted = value_of(own), value_of(size)
        if not statically_known_true(given <= wanted):
            node = self.call(aten.slice.Tensor, node, axis, 0, size)
            own = self.size(node, axis)
        if not statically_known_true(wanted <= given):
            shape = [self.size(node, other) for other in range(rank(node))]
            shape[axis] = self.arithmetic(operator.sub, size, own)
            zeros = self.call(aten.new_zeros.default, node, shape)
            node = self.call(aten.cat.default, [node, zeros], axis)
        return node


def rank(node: Node) -> int:
    return len(node.meta["val"].shape)


def value_of(size: Size) -> Any:
    return size.meta["val"] if isinstance(size, Node) else size
