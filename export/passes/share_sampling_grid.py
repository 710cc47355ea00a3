"""Compute the sampling positions of MotionDeformConv once for all nodes with the same offsets."""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.function_body import DOMAIN

GRID_INPUT = 4


def share_sampling_grid(model: ir.Model) -> None:
    """Insert one SamplingGrid node for each offset field and connect it to its users, in place."""
    graph = model.graph
    grids: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.domain != DOMAIN or node.op_type != "MotionDeformConv":
            continue
        offset = node.inputs[1]
        assert offset is not None
        if offset not in grids:
            grid = ir.Node(DOMAIN, "SamplingGrid", [offset], name=f"{offset.name}/SamplingGrid")
            grid.outputs[0].name = f"{offset.name}/grid"
            graph.insert_before(node, grid)
            grids[offset] = grid.outputs[0]
        node.resize_inputs(GRID_INPUT + 1)
        node.replace_input_with(GRID_INPUT, grids[offset])
