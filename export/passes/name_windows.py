"""Append the window of LocalMean to its operator name: LocalMean(kernel=384) -> LocalMean384."""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.ops import local_mean


def name_windows(model: ir.Model) -> None:
    """Rename the LocalMean nodes in place; each window size has its own function body."""
    for node in model.graph:
        if (node.domain, node.op_type) == ("deblur", local_mean.SPEC.name):
            node.op_type += str(node.attributes.pop("kernel").as_int())
