"""Decide which nodes of a graph can be quantized to int8, and which never are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from deblur_export.calibration.qdq import QuantizableNode, find_quantizable
from deblur_export.export.graph import graph_of, inlined
from deblur_export.export.precision.check import multiply_adds
from deblur_export.export.precision.policy import LINEAR, SHAPES_ONLY, kept_nodes
from deblur_export.plugins.parameters import DECIDES, POSITIONS

FIRST = "the first layer: its error affects all others"
LAST = "the last layer: its error is directly visible in the image"
DESCRIPTOR = "reads one value per channel: saves nothing, and affects the whole image"
ASYMMETRIC = "its padding is asymmetric: TensorRT pads in a layer between it and its QDQ pair"
UNFIT = "its channels are not an axis of a single constant weight"
POOLING = frozenset({"ReduceMean", "GlobalAveragePool"})


@dataclass(frozen=True)
class Placement:
    """Which nodes of a graph can be quantized.

    Attributes:
        nodes: the quantizable nodes in the order of the graph.
        macs: multiply-adds by name of the quantizable node, on the image that `precision.check`
            counts on.
        never: the other convolutions and products by name, with the reason.
        total: multiply-adds of all convolutions and products, including those in bodies of custom
            ops, so that fractions of it cannot exceed 1.
    """

    nodes: tuple[QuantizableNode, ...]
    macs: dict[str, int]
    never: dict[str, str]
    total: int


def placement(model: onnx.ModelProto) -> Placement:
    """Decide for every convolution and product of an exported float32 graph."""
    counted = multiply_adds(inlined(model))
    total = sum(counted.values())
    reasons = _reasons(model)
    fit = find_quantizable(model)
    nodes = tuple(node for node in fit if node.name not in reasons)
    names = {node.name for node in fit}
    output = {node.name: node.output[0] for node in model.graph.node}
    never = {
        node.name: reasons.get(node.name, UNFIT)
        for node in model.graph.node
        if node.op_type in LINEAR and (node.name in reasons or node.name not in names)
    }
    return Placement(nodes, {n.name: counted[output[n.name]] for n in nodes}, never, total)


def _reasons(model: onnx.ModelProto) -> dict[str, str]:
    """Names of convolutions and products that must stay float32, with the reason."""
    graph = graph_of(onnx.shape_inference.infer_shapes(model)).graph
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    kept = kept_nodes(graph, ir.DataType.FLOAT16, opset, {}, {})
    exact = {node: why for node, why in kept.items() if why in (POSITIONS, DECIDES)}
    for node in reversed(list(graph)):
        users = [user for value in node.outputs for user, _ in value.uses()]
        ends = any(value.is_graph_output() for value in node.outputs)
        if node not in exact and users and not ends and all(user in exact for user in users):
            exact[node] = exact[users[0]]
    for node in _nearest(graph.inputs, lambda v: [u for u, _ in v.uses()], lambda n: n.outputs):
        exact.setdefault(node, FIRST)
    for node in _nearest(graph.outputs, _maker, lambda n: [v for v in n.inputs if v is not None]):
        exact.setdefault(node, LAST)
    for node in graph:
        maker = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if maker is not None and maker.op_type in POOLING:
            exact.setdefault(node, DESCRIPTOR)
        pads = list(node.attributes.get_ints("pads", []))
        if pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
            exact.setdefault(node, ASYMMETRIC)
    return {str(node.name): why for node, why in exact.items() if node.op_type in LINEAR}


def _maker(value: ir.Value) -> list[ir.Node]:
    producer = value.producer()
    return [] if producer is None else [producer]


def _nearest(
    start: Iterable[ir.Value],
    nodes: Callable[[ir.Value], Collection[ir.Node]],
    values: Callable[[ir.Node], Iterable[ir.Value]],
) -> list[ir.Node]:
    """The convolutions and products that can be reached from `start` without passing another."""
    waiting, seen, found = list(start), set[ir.Node](), list[ir.Node]()
    while waiting:
        for node in nodes(waiting.pop()):
            if node in seen:
                continue
            seen.add(node)
            if node.op_type in LINEAR:
                found.append(node)
            elif not node.domain and node.op_type not in SHAPES_ONLY:
                waiting.extend(values(node))
    return found
