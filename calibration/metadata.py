"""The metadata of an int8 file in its manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from deblur_export.calibration.placement import Placement
from deblur_export.calibration.qdq import QuantizationParameters
from deblur_export.export.precision.int8_check import check_int8, weights_hash
from deblur_export.manifest_blocks import MultiplyAdds, PrecisionMap

BUDGET = "kept in float32 by the budget"


def precision_map(
    model: onnx.ModelProto, placed: Placement, nodes: Collection[str]
) -> PrecisionMap:
    """Verify which nodes are int8, and describe them for the manifest.

    Args:
        model: a graph with QDQ pairs around `nodes`.
        placed: the nodes that can be quantized.
        nodes: names of the nodes that are quantized.

    Raises:
        CheckFailedError: the graph does not compute exactly these nodes in int8.
    """
    check = check_int8(model, nodes)
    excluded: dict[str, list[str]] = {}
    for node, reason in placed.never.items():
        excluded.setdefault(reason, []).append(node)
    if over_budget := [node.name for node in placed.nodes if node.name not in nodes]:
        excluded[BUDGET] = over_budget
    return PrecisionMap(
        multiply_adds=MultiplyAdds(round(check.convolutions, 4), round(check.products, 4)),
        nodes={"int8": check.nodes, "fp32": sum(map(len, excluded.values()))},
        kept_fp32={reason: tuple(names) for reason, names in excluded.items()},
        int8_weights_sha256=weights_hash(model),
    )


def scales(
    model: onnx.ModelProto, parameters: Mapping[str, QuantizationParameters]
) -> dict[str, tuple[float, int]]:
    """Scale and zero point, by name, of every activation that the graph quantizes."""
    read = [n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    return {name: (parameters[name].scale, parameters[name].zero) for name in read}
