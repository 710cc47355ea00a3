"""Verify which nodes of a graph compute in int8 by its QDQ pairs, and count their multiply-adds."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from deblur_export.errors import CheckFailedError
from deblur_export.export.graph import inlined
from deblur_export.export.precision.check import CONVOLUTIONS, multiply_adds, products
from deblur_export.export.runtimes.emulated_session import element_types

EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class Int8Check:
    """How much of a graph computes in int8. Bodies of custom ops count as float32.

    Attributes:
        convolutions, products: fractions, 0..1, of the multiply-adds of convolutions, and of
            convolutions and matrix products, whose two factors come from DequantizeLinear.
        nodes: number of these nodes.
    """

    convolutions: float
    products: float
    nodes: int


def check_int8(model: onnx.ModelProto, claimed: Collection[str]) -> Int8Check:
    """Count the multiply-adds of a graph that are computed in int8.

    Args:
        model: a graph with QDQ pairs.
        claimed: names of the nodes that must be in int8.

    Raises:
        CheckFailedError: other nodes are in int8, or none.
    """
    whole = inlined(model)
    macs, everything = multiply_adds(whole), products(whole)
    int8 = _int8(whole)
    if {node.name for node in int8} != set(claimed) or not int8:
        raise CheckFailedError(
            f"{len(int8)} convolutions and products of the graph are in int8, not the "
            f"{len(claimed)} that were requested"
        )

    def fraction(kinds: Collection[str]) -> float:
        whole = sum(macs[n.output[0]] for n in everything if n.op_type in kinds)
        return sum(macs[n.output[0]] for n in int8 if n.op_type in kinds) / max(whole, 1)

    kinds = {node.op_type for node in everything}
    return Int8Check(fraction(CONVOLUTIONS), fraction(kinds), len(int8))


def int8_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions and products that compute in int8."""
    return [str(node.name) for node in _int8(inlined(model))]


def _int8(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    types = element_types(model)
    rounded = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and types[node.input[0]] in EIGHT_BITS
    }
    return [node for node in products(model) if rounded.issuperset(node.input[:2])]


def weights_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of the int8 weights in the order of their names, as hexadecimal digits."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        if tensor.data_type == TensorProto.INT8:
            digest.update(tensor.name.encode() + tensor.raw_data)
    return digest.hexdigest()
