"""What the manifest of an int8 file says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from deblur_export.calibration.placement import Placement
from deblur_export.calibration.qdq import Grid
from deblur_export.export.precision.int8_proof import check_int8, weights_hash
from deblur_export.manifest import MultiplyAdds, PrecisionMap

BUDGET = "left in float32 by the budget"


def precision_map(
    model: onnx.ModelProto, places: Placement, nodes: Collection[str]
) -> PrecisionMap:
    """What is in int8 and what is not, proved.

    Args:
        model: with pairs around `nodes`.
        places: what could have been quantized.
        nodes: names of what was.

    Raises:
        CheckFailedError: the graph computes something else in int8.
    """
    proof = check_int8(model, nodes)
    kept: dict[str, list[str]] = {}
    for node, reason in places.never.items():
        kept.setdefault(reason, []).append(node)
    if given_back := [site.node for site in places.sites if site.node not in nodes]:
        kept[BUDGET] = given_back
    return PrecisionMap(
        multiply_adds=MultiplyAdds(round(proof.convolutions, 4), round(proof.products, 4)),
        nodes={"int8": proof.nodes, "fp32": sum(map(len, kept.values()))},
        kept_fp32={reason: tuple(names) for reason, names in kept.items()},
        int8_weights_sha256=weights_hash(model),
    )


def scales(model: onnx.ModelProto, grids: Mapping[str, Grid]) -> dict[str, tuple[float, int]]:
    """Scale and zero point of every activation that the graph quantizes."""
    read = [n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    return {name: (grids[name].scale, grids[name].zero) for name in read}
