"""A file says that tiles are exact only if they were compared with the whole image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deblur_export.export.tile_check import checked_tile
from deblur_export.manifest_blocks import Tile
from deblur_export.models.foreign import adapt
from deblur_export.models.foreign.examine import Given
from tests.models.foreign import networks


@pytest.mark.parametrize(
    ("net", "tile"),
    [
        (networks.Plain(), Tile(2, 1, proved=True)),
        (networks.Strided(), Tile(5, 4, proved=True)),
        (networks.Twice(), Tile(2, 1, proved=True)),
        (networks.SquareOnly(), Tile(2, 1, proved=True)),
        (networks.Whole(), Tile(None, 1, proved=False)),
    ],
)
def test_found_fields_are_proved(net: nn.Module, tile: Tile) -> None:
    torch.manual_seed(0)
    found, notes = checked_tile(adapt(net))
    assert found == tile and not notes


@pytest.mark.parametrize(
    "given", [Given(field=1, multiple=4, period=4), Given(field=5, multiple=4, period=1)]
)
def test_too_small_a_field_or_period_is_told(given: Given) -> None:
    found, notes = checked_tile(adapt(networks.Strided(), given=given))
    assert found.field is None and not found.proved
    assert "differ from the whole image" in notes[0] and "as given" in notes[0]


def test_a_field_that_is_too_large_to_compare_is_not_proved() -> None:
    model = adapt(networks.Plain(), given=Given(field=400))
    assert checked_tile(model) == (Tile(400, 1, proved=False), ())
