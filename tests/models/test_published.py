"""The networks compared with the figures of their papers."""

from __future__ import annotations

import pytest

from deblur_export import models
from deblur_export.models.catalogue import Comparison, comparisons

ROWS = list(comparisons())


# Counting the multiply-adds of networks of two and four sub-decoders takes longest.
LARGE = [("aibnet", "b", "GMACs"), ("aibnet", "l", "GMACs")]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=f"{row.name}-{row.variant}-{row.unit}",
            marks=[pytest.mark.slow] * ((row.name, row.variant, row.unit) in LARGE),
        )
        for row in ROWS
    ],
)
def test_published_figure(row: Comparison) -> None:
    assert row.figure.tolerance <= 0.03
    if row.figure.matched:
        assert row.within_tolerance, f"{row.counted} instead of {row.published}"
    else:
        assert row.figure.note, "a figure that is not matched says why"
        assert not row.within_tolerance, "it matches after all: say so"


def test_every_network_with_a_paper_is_compared() -> None:
    assert {row.name for row in ROWS} == set(models.NAMES)
