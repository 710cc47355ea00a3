"""What other networks bring becomes something that every runtime has."""

from __future__ import annotations

import pytest

from deblur_export.export.precision.cast import lower_precision
from deblur_export.models.image_spec import ImageSpec
from deblur_export.plugins.spec import ABSENT
from tests import needs
from tests.export import foreign
from tests.export.foreign import Padded
from tests.export.loading import assert_every_target_is, parse_rtx

SCATTERS = {"ScatterND", "ScatterElements", "NonZero", "Loop", "If"}
SHAPES = ((1, 3, 24, 16), (2, 3, 8, 32), (3, 3, 13, 27))


@pytest.mark.parametrize("block", [foreign.ShiftedWindows, foreign.Assignments])
def test_assignments_at_free_sizes(block: type[Padded]) -> None:
    graphs = assert_every_target_is(block().eval(), ImageSpec(8), SHAPES)
    for graph in graphs.values():
        assert not {node.op_type for node in graph.graph} & SCATTERS


def test_scan_that_leaves_out_an_input_in_the_middle() -> None:
    """TensorRT for RTX refuses an empty name: its nodes have fewer inputs, of the right types."""
    net = foreign.ScanWithoutGate().eval()
    graph = assert_every_target_is(net, ImageSpec(4), ((1, 3, 8, 12),), tolerance=1e-4)["rtx"]
    lowered, _ = lower_precision(graph, "fp16", "rtx")
    if needs.RTX.installed():
        parse_rtx(lowered)
    for model in (graph, lowered):
        (node,) = (n for n in model.graph if n.op_type == "SelectiveScan")
        (function,) = model.functions.values()
        assert len(node.inputs) == len(function.inputs) == 7 and all(node.inputs)
        assert node.attributes[ABSENT].as_strings() == ("z",)
