"""Assignments to parts of tensors become operators that every runtime has."""

from __future__ import annotations

import pytest

from deblur_export.models.image_spec import ImageSpec
from tests.export import foreign
from tests.export.foreign import Padded
from tests.export.loading import assert_every_target_is

SCATTERS = {"ScatterND", "ScatterElements", "NonZero", "Loop", "If"}
SHAPES = ((1, 3, 24, 16), (2, 3, 8, 32), (3, 3, 13, 27))


@pytest.mark.parametrize("block", [foreign.ShiftedWindows, foreign.Assignments])
def test_assignments_at_free_sizes(block: type[Padded]) -> None:
    graphs = assert_every_target_is(block().eval(), ImageSpec(8), SHAPES)
    for graph in graphs.values():
        assert not {node.op_type for node in graph.graph} & SCATTERS
