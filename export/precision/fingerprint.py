"""Identify the graph that ranges were measured on."""

from __future__ import annotations

import hashlib

import onnx_ir as ir


def fingerprint(model: ir.Model) -> str:
    """SHA-256 of the nodes, names and weights of the main graph as hexadecimal digits.

    It does not depend on the bodies of custom ops and the manifest: the same network may have the
    same fingerprint for two targets, and a graph has the same one as the file written from it.
    """
    digest = hashlib.sha256()
    for node in model.graph:
        inputs = [value.name if value is not None else "" for value in node.inputs]
        outputs = [value.name for value in node.outputs]
        digest.update(repr((node.domain, node.op_type, inputs, outputs)).encode())
    for name, value in sorted(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None:
            digest.update(repr((name, int(tensor.dtype), tuple(tensor.shape))).encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()
