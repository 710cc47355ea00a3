"""Adaptive pooling follows the size of the image in every target's file."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.export.adaptive_pooling import pooled
from deblur_export.models.image_spec import ImageSpec
from tests.export.foreign import Padded
from tests.export.loading import assert_every_target_is

SHAPES = ((1, 3, 24, 16), (2, 3, 8, 32), (1, 3, 13, 27))


class Strips(Padded):
    """Pools to strips and grids of several sizes, as BANet and PSPNet do."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = nn.ModuleList(
            nn.AdaptiveAvgPool2d(size) for size in ((None, 3), (1, None), (None, 1), 1, (5, 4))
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        for pool in self.pools:
            x = x + F.interpolate(pool(x), size)
        return x


def test_every_target_at_free_sizes() -> None:
    assert_every_target_is(Strips().eval(), ImageSpec(8), SHAPES)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 1), (None, 4), (2, None), (40, 3)])
def test_windows_are_those_of_torch(size: tuple[int | None, int | None]) -> None:
    image = torch.rand(2, 3, 23, 17, dtype=torch.float64)
    torch.testing.assert_close(pooled(image, size), F.adaptive_avg_pool2d(image, size))
