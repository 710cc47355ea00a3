"""Find out by running a graph which images it accepts and what it gives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deblur_export.errors import DeblurExportError
from deblur_export.export.adopt.ends import Ends, ImageInput, output_ends
from deblur_export.export.adopt.runs import Image, Runs, image
from deblur_export.models.image_spec import SCALES, ImageSpec
from deblur_export.shown import shown

SIDES = (64, 128, 256, 48, 224, 512)
MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 3, 5, 6, 7, 10, 12, 14, 20, 24, 28, 40, 48, 56, 96, 112)
ASPECTS = ((0, 1), (1, 0), (3, 2))  # steps of the multiple beyond the smallest height and width
LEAST_SIDE = 64  # pixels beside which sizes are tried
FIELD_SIDES = (128, 256)  # pixels; a field that does not fit is taken as the whole image
FIELD_SECONDS = 10.0  # of a run; beyond this no larger one is made
PERIOD = 32  # pixels; origins of tiles are multiples of this where none is proved
BLOCK = 8  # pixels of an image that are changed at once
SAME = 1e-5  # relative to the largest value: equal but for the order of sums


@dataclass(frozen=True)
class Sizes:
    """Which sizes a graph accepts, in pixels, and whether any number of images at once."""

    multiple: int
    minimum: int
    square: bool
    batch: bool


def find_output(runs: Runs, given: ImageInput, name: str | None) -> tuple[Ends, int, Image]:
    """The output that is the image: the only one, or that of the largest scale.

    Args:
        runs: the graph.
        given: its input.
        name: where the output is known.

    Returns:
        The ends with it, its scale, and the image that it was found with.

    Raises:
        DeblurExportError: the graph runs at no size, no output is an image, or several are.
    """
    if name is not None and name not in runs.outputs:
        known = shown(", ".join(runs.outputs))
        raise DeblurExportError(f"{runs.path}: there is no output {shown(name)}; there are {known}")
    names: list[str] = list(runs.outputs) if name is None else [name]
    sent, values = _first_run(runs, given, names)
    found = [
        (scale, ends)
        for output, value in zip(names, values, strict=True)
        for ends, scale in filter(None, [output_ends(runs.ends, output, value, sent.shape)])
        if scale in SCALES
    ]
    if not found:
        listed = ", ".join(
            f"{shown(output)} {'x'.join(map(str, np.shape(value)))}"
            for output, value in zip(names, values, strict=True)
        )
        raise DeblurExportError(
            f"{runs.path}: for an image of {'x'.join(map(str, sent.shape))} it gives {listed}: no "
            f"image of the same channels, {', '.join(map(str, SCALES[:-1]))} or {SCALES[-1]} times "
            "as high and wide"
        )
    scale = max(scale for scale, _ in found)
    largest = [ends for own, ends in found if own == scale]
    if len(largest) > 1:
        listed = shown(", ".join(ends.output for ends in largest))
        raise DeblurExportError(
            f"{runs.path}: {len(largest)} of its outputs are images of one size ({listed}): name "
            f"the restored one with --output-name {shown(largest[0].output)}"
        )
    return largest[0], scale, sent


def _first_run(runs: Runs, given: ImageInput, names: list[str]) -> tuple[Image, list[Any]]:
    sides = [given.size] if given.size else [(side, side) for side in SIDES]
    failure = None
    for height, width in sides:
        sent = image((given.batch or 1, given.channels, height, width))
        try:
            return sent, runs.values(sent, names)
        except DeblurExportError as error:
            failure = failure or error
    assert failure is not None
    advice = "" if given.size else "; name a size that it accepts with --shape 1x3x256x256"
    raise DeblurExportError(f"{failure}{advice}")


def check_runs(runs: Runs, sent: Image) -> None:
    """Check that two runs are equal, and that the result consists of finite numbers.

    Raises:
        DeblurExportError: it does not.
    """
    first, second = runs.restored(sent), runs.restored(sent)
    if not np.array_equal(first, second, equal_nan=True):
        raise DeblurExportError(
            f"{runs.path}: two runs on the same image differ by {np.abs(first - second).max():.1e}"
            ": it draws random numbers; export it without them"
        )
    if not np.isfinite(first).all():
        raise DeblurExportError(
            f"{runs.path}: its output contains NaN or infinity for an image in "
            f"{runs.ends.range[0]:g}..{runs.ends.range[1]:g}: it is damaged, or wants another "
            "--range"
        )


def probe_sizes(
    runs: Runs, given: ImageInput, scale: int, start: int, multiple: int | None
) -> Sizes:
    """Which sizes a graph accepts whose input declares any.

    Args:
        runs: the graph, with its output.
        given: its input.
        scale: of its output.
        start: a side in pixels that it accepts.
        multiple: where it is known.

    Raises:
        DeblurExportError: it accepts no other size than the one that was tried first.
    """
    accepts = _Acceptance(runs, given.batch or 1, given.channels, scale)
    found, square = accepts.grid(start, multiple)
    minimum = accepts.minimum(found, start, square)
    return Sizes(
        found, minimum, square, given.batch is None and batches(runs, given, (start, start))
    )


@dataclass(frozen=True)
class _Acceptance:
    runs: Runs
    batch: int
    channels: int
    scale: int

    def at(self, height: int, width: int) -> bool:
        found = self.runs.tried((self.batch, self.channels, height, width))
        wanted = (self.batch, self.channels, self.scale * height, self.scale * width)
        return found is not None and found.shape == wanted and bool(np.isfinite(found).all())

    def grid(self, start: int, known: int | None) -> tuple[int, bool]:
        """The size multiple in pixels, and whether only squares are accepted."""
        for square in (False, True):
            for multiple in (known,) if known else MULTIPLES:
                if all(self.at(*size) for size in _sizes(multiple, square)):
                    return multiple, square
        if known:
            raise DeblurExportError(
                f"--multiple {known}: ONNX Runtime does not run {self.runs.path} on such sizes"
            )
        raise DeblurExportError(
            f"{self.runs.path}: its sizes are declared free, and yet it runs on {start}x{start} "
            f"and on no other size that was tried: adopt it for that size, with --shape "
            f"{self.batch}x{self.channels}x{start}x{start}"
        )

    def minimum(self, multiple: int, start: int, square: bool) -> int:
        """The smallest side that is accepted, in pixels; 1 if it is one multiple."""
        for steps in range(1, max(2, -(-start // multiple))):
            side = steps * multiple
            if self.at(side, side) and (square or self.at(side, side + multiple)):
                return 1 if steps == 1 else side
        return -(-start // multiple) * multiple


def _sizes(multiple: int, square: bool) -> Iterator[tuple[int, int]]:
    steps = -(-LEAST_SIDE // multiple)
    # An odd number of steps: sizes that happen to be multiples of more tell too little.
    steps += 1 - steps % 2
    for tall, wide in ASPECTS:
        height = (steps + tall) * multiple
        yield height, height if square else (steps + wide) * multiple


def batches(runs: Runs, given: ImageInput, size: tuple[int, int]) -> bool:
    """Whether two images at once give what they give one after the other."""
    both = image((2, given.channels, *size), seed=1)
    try:
        together = runs.restored(both)
        apart = np.concatenate([runs.restored(both[:1]), runs.restored(both[1:])])
    except DeblurExportError:
        return False
    return together.shape == apart.shape and _close(together, apart)


@dataclass(frozen=True)
class Reach:
    """How tiles may be cut: `field` and `period` as in `ImageSpec`, and whether a tile beside the
    whole image proved them. The period is assumed where nothing was proved."""

    field: int | None
    period: int
    proved: bool


def probe_reach(runs: Runs, images: ImageSpec, batch: int, size: tuple[int, int] | None) -> Reach:
    """Follow a change in the middle of an image, and compare a tile with the whole.

    A field is the whole image if it does not fit into the largest of `FIELD_SIDES`, or if the
    comparison fails. Of a graph of one size no tile can be compared; its field is then larger than
    what was seen by the block of pixels that was changed.

    Args:
        runs: the graph.
        images: which sizes it accepts.
        batch: how many images at once.
        size: the one height and width that it accepts, or None.
    """
    periods = [images.multiple]
    while periods[-1] < PERIOD:
        periods.append(2 * periods[-1])
    unknown = Reach(None, periods[-1], False)
    if size is not None:
        seen = _extent(runs, images, batch, size, BLOCK) if min(size) >= 4 * BLOCK else None
        return unknown if seen is None else Reach(seen + BLOCK, periods[-1], False)
    block = max(images.multiple, BLOCK)
    for side in FIELD_SIDES:
        length = images.padded(side, side)[0]
        if length < 4 * block:
            continue
        began = time.perf_counter()
        field = _extent(runs, images, batch, (length, length), block)
        if field is not None:
            proved = (p for p in periods if _proved(runs, images, batch, field, p))
            period = next(proved, None)
            return unknown if period is None else Reach(field, period, True)
        if time.perf_counter() - began > FIELD_SECONDS:
            break
    return unknown


def _extent(
    runs: Runs, images: ImageSpec, batch: int, size: tuple[int, int], block: int
) -> int | None:
    """How many pixels beyond a block at the centre a change of it reaches; None if it reaches the
    border."""
    starts = [(side - block) // 2 // block * block for side in size]
    reach = 0
    for seed in (0, 1):
        before = image((batch, images.channels, *size), seed)
        after = before.copy()
        tall, wide = (slice(start, start + block) for start in starts)
        after[:, :, tall, wide] = 1 - np.rint(before[:, :, tall, wide])
        changed = (runs.restored(after) != runs.restored(before)).any(axis=(0, 1))
        for axis, start in enumerate(starts):
            at = np.flatnonzero(changed.any(axis=1 - axis))
            if not at.size:
                continue
            first, last = at[0] // images.scale, at[-1] // images.scale
            if first == 0 or last == size[axis] - 1:
                return None
            reach = max(reach, start - first, last - (start + block - 1))
    return int(reach)


def _proved(runs: Runs, images: ImageSpec, batch: int, field: int, period: int) -> bool:
    """Whether a tile with a halo as wide as the field has the same inside as the whole image."""
    scale = images.scale
    halo = -(-field // period) * period
    inside = images.padded(period, period)[0]
    side = inside + 2 * halo
    tile = images.padded(side, side)[0]
    length = images.padded(tile + period, tile + period)[0]
    whole = image((batch, images.channels, length, length), seed=2)
    end = period + tile
    expected = runs.restored(whole)
    found = runs.restored(np.ascontiguousarray(whole[:, :, period:end, period:end]))
    a = slice(scale * (period + halo), scale * (period + halo + inside))
    b = slice(scale * halo, scale * (halo + inside))
    return _close(expected[:, :, a, a], found[:, :, b, b])


def _close(a: Image, b: Image) -> bool:
    return bool(np.abs(a - b).max() <= SAME * max(float(np.abs(a).max()), 1e-30))
