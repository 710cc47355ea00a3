"""Compare tiles with the whole image before a file says that tiling is exact."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from deblur_export.export.images.tiling import Tiling, restore_tiled
from deblur_export.manifest_blocks import Tile
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.plugins.libraries import cpu

LARGEST_SIDE = 640  # pixels of the whole image; beyond this nothing is compared
RAMP = 8
TOLERANCE = 1e-4  # of the difference, relative to the largest output

Image = NDArray[np.float32]


def checked_tile(model: LoadedModel) -> tuple[Tile, tuple[str, ...]]:
    """What tiling has to respect, and a note if the receptive field of the network's description
    is too small: the whole image is then taken for it.

    A network whose field is the whole image, or too large for a quick run, is not compared.
    """
    images = model.images
    period, field = images.tile_period, images.field
    tile = Tile(field, period, proved=False)
    if field is None:
        return tile, ()
    side = images.padded(2 * field + RAMP + 2 * period, 1)[0]
    side = -(-side // period) * period
    height, width = side + period, side + 3 * period + period // 2
    if images.square:
        height = width
    if max(height, width) > LARGEST_SIDE:
        return tile, ()
    whole = np.random.default_rng(0).random((1, images.channels, height, width), np.float32)
    tiling = Tiling(side, field, RAMP, period)

    def restore(image: Image) -> Image:
        with torch.no_grad(), cpu.switched_off():
            result: Image = model.net(torch.from_numpy(image)).numpy()
        return result

    expected = restore(whole)
    found = restore_tiled(restore, whole, tiling, scale=images.scale)
    change = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    if change <= TOLERANCE:
        return Tile(field, period, proved=True), ()
    return Tile(None, period, proved=False), (
        f"tiles with a halo of {field} pixels, its receptive field as {_known(model)}, differ from "
        f"the whole image by {change:.1e} of the largest output: the field is taken as the whole "
        "image; give another with --field",
    )


def _known(model: LoadedModel) -> str:
    fact = model.facts.get("field")
    return "assumed" if fact is None else fact.by
