"""TopPixels beyond the case table."""

from __future__ import annotations

import pytest
import torch

from deblur_export.plugins.ops.top_pixels import SPEC, top_pixels
from deblur_export.target import TARGETS


def test_the_rtx_body_has_a_fixed_number_of_steps_and_no_topk() -> None:
    nodes = {node.op_type for node in SPEC.body(TARGETS["rtx"]).graph}
    assert "CumSum" in nodes
    assert nodes.isdisjoint({"TopK", "NonZero", "Loop", "Scan", "If"})


def test_scores_decide_within_each_image() -> None:
    scores = torch.tensor([[0.0, 9.0, 5.0, 5.0], [7.0, -1.0, 6.0, 6.0]]).view(2, 1, 2, 2)
    assert top_pixels(scores, ratio=2).tolist() == [[1], [0]]
    assert top_pixels(scores, ratio=1).tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(
    ("shape", "ratio", "message"),
    [
        ((1, 2, 4, 4), 2, "scores"),
        ((1, 1, 4, 6), 4, "multiple"),
        ((1, 1, 5, 4), 2, "multiple"),
        ((1, 1, 4, 4), 0, "positive"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    shape: tuple[int, ...], ratio: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        top_pixels(torch.zeros(shape), ratio=ratio)
