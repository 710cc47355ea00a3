"""Restore a large image tile by tile, with the same result as in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError

Span = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """How to split an image into overlapping tiles; all lengths are in pixels.

    Args:
        tile: side of a tile including the halo; at least 2 * halo + ramp + multiple.
        halo: width of the border that is discarded at each inner edge. It must be at least the
            radius of the receptive field for the result to equal the untiled one.
        ramp: width of the raised-cosine blending between adjacent tiles; 0 for none.
        multiple: origins of tiles are multiples of this, the total stride of the network.

    Raises:
        DeblurExportError: a length is out of range, or the tile is too small.
    """

    tile: int
    halo: int
    ramp: int
    multiple: int

    def __post_init__(self) -> None:
        if self.halo < 0 or self.ramp < 0 or self.multiple < 1:
            raise DeblurExportError(
                f"tiling: halo {self.halo} and ramp {self.ramp} must be 0 or more, "
                f"and multiple {self.multiple} 1 or more"
            )
        smallest = 2 * self.halo + self.ramp + self.multiple
        if self.tile < smallest:
            raise DeblurExportError(
                f"tiling: a tile of {self.tile} pixels is too small for halo {self.halo}, ramp "
                f"{self.ramp} and multiple {self.multiple}; use a tile of {smallest} or more"
            )

    @property
    def step(self) -> int:
        """Distance between adjacent origins: the largest that preserves the overlap."""
        return (self.tile - 2 * self.halo - self.ramp) // self.multiple * self.multiple


@dataclass(frozen=True)
class Tile:
    """The crop image[..., y0:y1, x0:x1]."""

    y0: int
    y1: int
    x0: int
    x1: int


def plan(height: int, width: int, tiling: Tiling) -> list[Tile]:
    """Plan the tiles that cover an image of height x width pixels, row by row.

    Adjacent tiles overlap by at least 2 * halo + ramp. Every tile has the side `tile`, except the
    last one of a row or column, which ends at the border of the image and is up to multiple - 1
    pixels longer, so that its origin is a multiple. A side not longer than `tile` is one tile.

    Raises:
        DeblurExportError: a side is below 1.
    """
    if height < 1 or width < 1:
        raise DeblurExportError(f"tiling: an image of {height} x {width} pixels is empty")
    return [
        Tile(y0, y1, x0, x1)
        for y0, y1 in _spans(height, tiling)
        for x0, x1 in _spans(width, tiling)
    ]


def restore_tiled(
    restore: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    image: NDArray[np.float32],
    tiling: Tiling,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Run `restore` on every tile of an image and blend the results.

    The result equals restore(image) up to rounding if the receptive field of `restore` has a radius
    of at most `halo` and `restore` depends on the position only modulo `multiple`: padding at the
    inner edges of a tile then affects only pixels that are discarded. Operators over the whole
    image (global pooling, instance normalisation) are approximate for any halo.

    Args:
        restore: float32 [1, 3, h, w] -> [1, C, h, w].
        image: float32 [1, 3, H, W] in any range.
        tiling: how to split the image.
        progress: called after each tile with the number of finished tiles and of all tiles.

    Returns:
        float32 [1, C, H, W].

    Raises:
        DeblurExportError: the image or a restored tile has another shape. Errors of `restore` are
            passed on.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise DeblurExportError(f"tiling: expected an image [1, 3, H, W], got {list(image.shape)}")
    height, width = image.shape[2:]
    tiles = plan(height, width, tiling)
    # The weight of a tile is a product of one weight per axis, so each axis is normalised alone.
    rows, columns = _weights(height, tiling), _weights(width, tiling)
    result = np.zeros((1, 0, height, width), np.float32)
    for done, t in enumerate(tiles, start=1):
        crop = np.ascontiguousarray(image[:, :, t.y0 : t.y1, t.x0 : t.x1], np.float32)
        restored = restore(crop)
        if restored.shape[2:] != crop.shape[2:]:
            raise DeblurExportError(
                f"tiling: the output for a tile of shape {list(crop.shape)} has shape "
                f"{list(restored.shape)}; the network must return images of the size of its input"
            )
        if done == 1:
            result = np.zeros((1, restored.shape[1], height, width), np.float32)
        weight = rows[t.y0, t.y1][:, None] * columns[t.x0, t.x1]
        result[:, :, t.y0 : t.y1, t.x0 : t.x1] += weight * restored
        if progress is not None:
            progress(done, len(tiles))
    return result


def _spans(length: int, tiling: Tiling) -> list[Span]:
    """Start and end of the tiles along one axis."""
    if length <= tiling.tile:
        return [(0, length)]
    last = (length - tiling.tile) // tiling.multiple * tiling.multiple
    return [(start, start + tiling.tile) for start in range(0, last, tiling.step)] + [
        (last, length)
    ]


def _weights(length: int, tiling: Tiling) -> dict[Span, NDArray[np.float32]]:
    """Blending weights [end - start] of each span; over all spans they sum to 1 at every pixel.

    At an inner edge they are 0 for `halo` pixels and then rise over `ramp`; at the border of the
    image they are 1.
    """
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(tiling.ramp) + 0.5) / max(tiling.ramp, 1))
    edge = np.concatenate([np.zeros(tiling.halo), rise])
    weights: dict[Span, NDArray[np.float64]] = {}
    total = np.zeros(length)
    for start, end in _spans(length, tiling):
        weight = np.ones(end - start)
        if start > 0:
            weight[: edge.size] *= edge
        if end < length:
            weight[weight.size - edge.size :] *= edge[::-1]
        weights[start, end] = weight
        total[start:end] += weight
    return {(s, e): (w / total[s:e]).astype(np.float32) for (s, e), w in weights.items()}
