"""Add the standard-operator bodies of the custom ops that a graph uses."""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.function_body import DOMAIN, VERSION
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.spec import Target


def attach_functions(model: ir.Model, target: Target) -> list[str]:
    """Attach one function a used op, in place; returns the names of the ops."""
    used = sorted({node.op_type for node in model.graph if node.domain == DOMAIN})
    for name in used:
        function = OPS[name].body(target)
        model.functions[function.identifier()] = function
    if used:
        model.graph.opset_imports[DOMAIN] = VERSION
    return used
