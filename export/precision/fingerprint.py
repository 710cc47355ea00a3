"""Which graph something was found on."""

from __future__ import annotations

import hashlib

import onnx_ir as ir


def fingerprint(model: ir.Model) -> str:
    """SHA-256 over the main graph's nodes, names and weights.

    Bodies of custom ops and the manifest do not count: the same network for two targets may have
    the same one, as do a finished graph and the file that is made of it.
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
