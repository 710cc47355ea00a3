"""Compute the sampling positions of MotionDeformConv once for all nodes with the same offsets."""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.function_body import DOMAIN


def share_sampling_plan(model: ir.Model) -> None:
    """Insert one BilinearCorners node an offset field and feed it to its users, in place."""
    graph = model.graph
    plans: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node in list(graph):
        if node.domain != DOMAIN or node.op_type != "MotionDeformConv":
            continue
        offset = node.inputs[1]
        assert offset is not None
        if offset not in plans:
            plan = ir.Node(DOMAIN, "BilinearCorners", [offset], num_outputs=2)
            plan.name = f"{offset.name}/BilinearCorners"
            plan.outputs[0].name, plan.outputs[1].name = (
                f"{offset.name}/index",
                f"{offset.name}/coefficient",
            )
            graph.insert_before(node, plan)
            plans[offset] = tuple(plan.outputs)
        node.resize_inputs(6)
        for position, value in zip((4, 5), plans[offset], strict=True):
            node.replace_input_with(position, value)
