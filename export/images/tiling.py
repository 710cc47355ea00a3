"""Restore a large image tile by tile, with the same result as in one piece."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError

Span = tuple[int, int]
Images = NDArray[np.float32]
Restore = Callable[[Images], Images]


@dataclass(frozen=True)
class Tiling:
    """How to split one axis of an image into overlapping tiles; all lengths are in pixels.

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
                f"{self.ramp} and multiple {self.multiple}; use a tile of {smallest} or more, or a "
                "smaller overlap"
            )

    def at(self, scale: int) -> Tiling:
        """The same in the pixels of an image that is `scale` times as large."""
        lengths = (self.tile, self.halo, self.ramp, self.multiple)
        return Tiling(*(scale * length for length in lengths))

    @property
    def step(self) -> int:
        """Distance between adjacent origins: the largest that preserves the overlap."""
        return (self.tile - 2 * self.halo - self.ramp) // self.multiple * self.multiple


# Of both axes, or of rows and columns.
Tilings = Tiling | tuple[Tiling, Tiling]


@dataclass(frozen=True)
class Tile:
    """The crop image[..., y0:y1, x0:x1]."""

    y0: int
    y1: int
    x0: int
    x1: int


Piece = tuple[int, Tile]  # index of an image, and its tile


def plan(height: int, width: int, tiling: Tilings) -> list[Tile]:
    """Plan the tiles that cover an image of height x width pixels, row by row.

    Adjacent tiles overlap by at least 2 * halo + ramp. Every tile has the side `tile`, except the
    last one of a row or column, which ends at the border of the image and is up to multiple - 1
    pixels longer, so that its origin is a multiple. A side not longer than `tile` is one tile.

    Raises:
        DeblurExportError: a side is below 1.
    """
    if height < 1 or width < 1:
        raise DeblurExportError(f"tiling: an image of {height} x {width} pixels is empty")
    rows, columns = _both(tiling)
    return [
        Tile(y0, y1, x0, x1) for y0, y1 in _spans(height, rows) for x0, x1 in _spans(width, columns)
    ]


def restore_tiled(
    restore: Restore,
    images: Images,
    tiling: Tilings,
    progress: Callable[[int, int], None] | None = None,
    scale: int = 1,
    batch: int = 1,
) -> Images:
    """Run `restore` on every tile of images and blend the results.

    The result equals restore(images) up to rounding if the receptive field of `restore` has a
    radius of at most `halo` and `restore` depends on the position only modulo `multiple`: padding
    at the inner edges of a tile then affects only pixels that are discarded. Operators over the
    whole image (global pooling, instance normalisation) are approximate for any halo.

    Args:
        restore: float32 [batch, C, h, w] -> [batch, D, scale h, scale w].
        images: float32 [N, C, H, W] in any range; each is restored alone.
        tiling: how to split the images, in pixels of the input.
        progress: called after each tile with the number of finished tiles and of all tiles.
        scale: how much larger the output is.
        batch: how many tiles `restore` takes at once.

    Returns:
        float32 [N, D, scale H, scale W].

    Raises:
        DeblurExportError: the images or a restored tile have another shape. Errors of `restore`
            are passed on.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise DeblurExportError(f"tiling: expected images [N, C, H, W], got {list(images.shape)}")
    count, _, height, width = images.shape
    pieces = [(n, tile) for n in range(count) for tile in plan(height, width, tiling)]
    # The weight of a tile is a product of one weight per axis, so each axis is normalised alone.
    rows, columns = (
        _weights(scale * length, one.at(scale))
        for length, one in zip((height, width), _both(tiling), strict=True)
    )
    result = np.zeros((count, 0, scale * height, scale * width), np.float32)
    done = 0
    for group in _groups(pieces, batch):
        crops = [images[n, :, t.y0 : t.y1, t.x0 : t.x1] for n, t in group]
        restored = in_batches(restore, np.ascontiguousarray(np.stack(crops), np.float32), batch)
        wanted = (len(group), *(scale * side for side in crops[0].shape[1:]))
        if (len(restored), *restored.shape[2:]) != wanted:
            raise DeblurExportError(
                f"tiling: the output for a tile of shape {list(crops[0].shape)} has shape "
                f"{list(restored.shape[1:])}; the network must return images {scale} times as "
                "large as its input"
            )
        if done == 0:
            result = np.zeros((count, restored.shape[1], *result.shape[2:]), np.float32)
        for (n, t), tile in zip(group, restored, strict=True):
            y0, y1, x0, x1 = (scale * edge for edge in (t.y0, t.y1, t.x0, t.x1))
            weight = rows[y0, y1][:, None] * columns[x0, x1]
            result[n, :, y0:y1, x0:x1] += weight * tile
            done += 1
            if progress is not None:
                progress(done, len(pieces))
    return result


def in_batches(restore: Restore, images: Images, batch: int) -> Images:
    """Run `restore`, which takes `batch` images at once, on any number of them; the last batch is
    filled with copies."""
    results = []
    for start in range(0, len(images), batch):
        group = images[start : start + batch]
        missing = batch - len(group)
        whole = np.concatenate([group, group[-1:].repeat(missing, axis=0)]) if missing else group
        results.append(restore(whole)[: len(group)])
    return results[0] if len(results) == 1 else np.concatenate(results)


def _groups(pieces: list[Piece], batch: int) -> Iterator[list[Piece]]:
    """At most `batch` pieces each, whose tiles have the same size."""

    def size(piece: Piece) -> Span:
        return piece[1].y1 - piece[1].y0, piece[1].x1 - piece[1].x0

    ordered = sorted(pieces, key=size) if batch > 1 else pieces
    for _, same in itertools.groupby(ordered, size):
        alike = list(same)
        yield from (alike[start : start + batch] for start in range(0, len(alike), batch))


def _both(tiling: Tilings) -> tuple[Tiling, Tiling]:
    return tiling if isinstance(tiling, tuple) else (tiling, tiling)


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
