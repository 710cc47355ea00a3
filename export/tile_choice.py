"""How a photo is divided for a file: into tiles of sizes that the file accepts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblur_export.artifact import Artifact
from deblur_export.engine_file import shape_range
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.tiling import Tiling

# Results of up to this many pixels are not tiled; the largest network then needs about 3 GB.
WHOLE_PIXELS = 2_100_000
TILE = 1024  # side in pixels of the result of a tile
LARGEST_SIDE = 1 << 20  # of a file that accepts any size
# Networks that pool over the image have no exact halo; this many pixels hide the seams.
HALO_WITHOUT_FIELD = 32
RAMP = 64

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class TileOptions:
    """How an image is tiled.

    Attributes:
        tile: side of a tile in pixels; 0 for no tiling, None to decide by the size of the image.
        overlap: overlap of neighbouring tiles in pixels; None for twice the receptive field plus a
            blending ramp.
    """

    tile: int | None = None
    overlap: int | None = None


@dataclass(frozen=True)
class Division:
    """How an image is run: padded (right, bottom) to `size`, in pixels, and in tiles as `tiling`
    says of rows and columns, None for one piece. `notes` say where that changes the result."""

    size: Size
    tiling: tuple[Tiling, Tiling] | None
    notes: tuple[str, ...] = ()


def divide(artifact: Artifact, size: Size, options: TileOptions) -> Division:
    """How an image of a size is run with a file.

    Raises:
        DeblurExportError: the options do not fit the file, or each other.
    """
    limits = _limits(artifact)
    fixed = all(low == high for low, high in limits)
    fits = all(side <= high for side, (_, high) in zip(size, limits, strict=True))
    if fixed and options.tile is not None and not (options.tile == 0 and fits):
        _check_fixed(artifact, limits, options.tile)
        options = TileOptions(None, options.overlap)
    pixels = size[0] * size[1] * artifact.manifest.output.scale**2
    if options.tile == 0 or (options.tile is None and fits and (fixed or pixels <= WHOLE_PIXELS)):
        whole = max(size[0], limits[0][0]), max(size[1], limits[1][0])
        return Division(whole, None, _padding_notes(artifact, size, whole))
    axes = [_tiling(artifact, *one, options) for one in limits]
    padded = [_padded(*one) for one in zip(size, axes, limits, strict=True)]
    whole = padded[0], padded[1]
    notes = _tiling_notes(artifact, axes, fixed) or _padding_notes(artifact, size, whole)
    return Division(whole, (axes[0], axes[1]), notes)


def padded(images: NDArray[np.float32], size: Size, artifact: Artifact) -> NDArray[np.float32]:
    """Images [N, C, H, W] padded to `size`: as the graph pads by less than the network's multiple,
    and by more with their reflection, since a network does not know large black borders."""
    own = "constant" if artifact.manifest.input.padding == "zeros" else "reflect"
    for axis, wanted in zip((2, 3), size, strict=True):
        missing = wanted - images.shape[axis]
        if missing > 0:
            pads = [(0, missing if number == axis else 0) for number in range(4)]
            mode = own if missing < artifact.manifest.input.multiple else "reflect"
            images = np.pad(images, pads, mode)  # type: ignore[call-overload]
    return images


def least_batch(artifact: Artifact) -> int:
    """How many images a file takes at once at least."""
    limits = shape_range(artifact)
    return limits[0][0] if limits is not None else artifact.manifest.input.batch or 1


def _limits(artifact: Artifact) -> tuple[Size, Size]:
    """Smallest and largest height, and smallest and largest width, that a file accepts."""
    limits, size = shape_range(artifact), artifact.manifest.input.size
    if limits is not None:
        low, high = limits
        return (low[2], high[2]), (low[3], high[3])
    if size is not None:
        return (size[0], size[0]), (size[1], size[1])
    return (1, LARGEST_SIDE), (1, LARGEST_SIDE)


def _check_fixed(artifact: Artifact, limits: tuple[Size, Size], tile: int) -> None:
    height, width = limits[0][0], limits[1][0]
    if (height, width) != (tile, tile):
        raise DeblurExportError(
            f"{artifact.path} accepts {width}x{height} only, which is the size of its tiles, not "
            f"{tile}: leave --tile out, or export without --shape for other tiles"
        )


def _tiling(artifact: Artifact, low: int, high: int, options: TileOptions) -> Tiling:
    """How one axis is tiled, for a file that accepts sides from `low` to `high`.

    Without options the overlap is as large as the receptive field asks for, but at most three
    quarters of a tile, which is 16 times the work; if that does not suffice, half.
    """
    manifest = artifact.manifest
    field, period = manifest.tile.field, manifest.tile.period
    halo = HALO_WITHOUT_FIELD if field is None else field
    overlap = 2 * halo + RAMP if options.overlap is None else options.overlap
    tile = options.tile or min(max(TILE // manifest.output.scale, 2 * overlap), TILE, high)
    if options.tile is None and tile + period - 1 > high:
        # The last tile of a row may be longer by less than the period.
        tile = high - period + 1 if low <= high - period + 1 >= overlap + period else high
    period = period if period <= tile else 1
    if options.overlap is None and options.tile is None:
        most = min(tile * 3 // 4, tile - period)
        if 2 * halo > most:
            most = min(tile // 2, tile - period)
            halo = most * 3 // 8
        overlap = min(overlap, most)
    halo = min(halo, overlap // 2)
    return Tiling(tile, halo, overlap - 2 * halo, period)


def _padded(side: int, tiling: Tiling, limits: Size) -> int:
    """The length to which an axis is padded: the last tile must not be longer than the file
    accepts, nor the only one shorter."""
    low, high = limits
    if side <= tiling.tile:
        return max(side, low)
    if tiling.tile + tiling.multiple - 1 <= high:
        return side
    return side + (tiling.tile - side) % tiling.multiple


def _padding_notes(artifact: Artifact, size: Size, whole: Size) -> tuple[str, ...]:
    multiple = artifact.manifest.input.multiple
    far = any(b - a >= multiple for a, b in zip(size, whole, strict=True))
    if not far or artifact.manifest.tile.field is not None:
        return ()
    return (
        f"filled up with its reflection to the {whole[1]}x{whole[0]} that {artifact.path.name} "
        "accepts: this network pools over the whole image, so the result differs from that of a "
        "file that accepts any size",
    )


def _tiling_notes(artifact: Artifact, axes: list[Tiling], fixed: bool) -> tuple[str, ...]:
    field, period = artifact.manifest.tile.field, artifact.manifest.tile.period
    run = "an untiled run (--tile 0)"
    if fixed:
        run = "an untiled run, which takes a file that accepts any size"
    if field is None and "train_size" in artifact.manifest.model.arguments:
        return (
            "restored in tiles: this network (--local) pools over windows around each pixel, "
            "whose effect adds up from block to block, so the result differs slightly from " + run,
        )
    if field is None:
        return (
            "restored in tiles: this network pools over the whole image, so the result differs "
            f"from {run}",
        )
    if any(tiling.halo < field for tiling in axes):
        return (
            f"restored in tiles with an overlap below twice the receptive field of {field} pixels: "
            "the result differs from an untiled run near tile borders",
        )
    if any(tiling.multiple % period for tiling in axes):
        return (
            f"restored in tiles whose origins are not multiples of the {period} pixels of this "
            f"network, so the result differs from {run}",
        )
    return ()
