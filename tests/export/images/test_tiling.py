"""Tiled restoration equals restoration in one piece if the halo covers the receptive field."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from deblur_export.errors import DeblurExportError
from deblur_export.export.images.tiling import Tiling, plan, restore_tiled

Array = NDArray[np.float32]
Operator = Callable[[Array], Array]

SIZES = [(501, 333), (96, 96), (97, 300), (40, 500), (500, 5), (1, 1), (111, 112)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine, the synchronisation of threads takes seconds for tiny tiles."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photo(height: int, width: int) -> Array:
    return np.random.default_rng(0).random((1, 3, height, width), dtype=np.float32)


def conv(radius: int) -> Operator:
    """A random convolution with zero padding; the radius of its receptive field is `radius`."""
    side = 2 * radius + 1
    kernel = torch.from_numpy(np.random.default_rng(1).random((3, 3, side, side), np.float32))
    kernel /= kernel.sum(dim=(1, 2, 3), keepdim=True)

    def operator(image: Array) -> Array:
        return np.asarray(F.conv2d(torch.from_numpy(image), kernel, padding=radius).numpy())

    return operator


def down_up(image: Array) -> Array:
    """A minimal network of stride 16: pad, downsample, 3 x 3 convolution, upsample, add.

    A pixel sees its own 16 x 16 block and the eight around it: 31 pixels far.
    """
    x = torch.from_numpy(image)
    height, width = x.shape[2:]
    low = F.avg_pool2d(F.pad(x, (0, -width % 16, 0, -height % 16)), 16)
    kernel = torch.from_numpy(np.random.default_rng(2).random((3, 3, 3, 3), np.float32))
    up = F.interpolate(F.conv2d(low, kernel, padding=1), scale_factor=16)
    return np.asarray((x + up[..., :height, :width]).numpy())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("operator", "tiling"),
    [
        (conv(4), Tiling(tile=96, halo=4, ramp=16, multiple=1)),
        (conv(4), Tiling(tile=97, halo=7, ramp=0, multiple=16)),
        (conv(4), Tiling(tile=41, halo=4, ramp=1, multiple=16)),
        (down_up, Tiling(tile=128, halo=32, ramp=16, multiple=16)),
        (down_up, Tiling(tile=111, halo=31, ramp=33, multiple=16)),
    ],
)
def test_equals_the_untiled_result(
    operator: Operator, tiling: Tiling, size: tuple[int, int]
) -> None:
    image = photo(*size)
    tiled = restore_tiled(operator, image, tiling)
    assert tiled.dtype == np.float32
    assert np.abs(tiled - operator(image)).max() < 1e-6 * max(1, np.abs(tiled).max())


@pytest.mark.parametrize(
    ("operator", "tiling"),
    [
        (conv(4), Tiling(tile=96, halo=3, ramp=0, multiple=16)),  # halo below the radius
        (down_up, Tiling(tile=128, halo=15, ramp=16, multiple=16)),
        (down_up, Tiling(tile=128, halo=32, ramp=16, multiple=9)),  # origins off the stride
    ],
)
def test_differs_where_the_conditions_are_broken(operator: Operator, tiling: Tiling) -> None:
    """Shows that the test above can fail."""
    image = photo(501, 333)
    assert np.abs(restore_tiled(operator, image, tiling) - operator(image)).max() > 1e-3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tiling", [Tiling(96, 8, 16, 16), Tiling(50, 3, 7, 4), Tiling(9, 3, 0, 3)])
def test_plan(tiling: Tiling, size: tuple[int, int]) -> None:
    height, width = size
    covered = np.zeros(size, int)
    for t in plan(height, width, tiling):
        assert t.y0 % tiling.multiple == t.x0 % tiling.multiple == 0
        assert 0 <= t.y0 < t.y1 <= height
        assert 0 <= t.x0 < t.x1 <= width
        for start, end, length in [(t.y0, t.y1, height), (t.x0, t.x1, width)]:
            if length <= tiling.tile:
                assert (start, end) == (0, length)
            elif end < length:
                assert end - start == tiling.tile
            else:
                assert 0 <= end - start - tiling.tile < tiling.multiple
        # The tiles must cover the image also without their halos.
        y0, x0 = (t.y0 and t.y0 + tiling.halo), (t.x0 and t.x0 + tiling.halo)
        y1 = t.y1 if t.y1 == height else t.y1 - tiling.halo
        x1 = t.x1 if t.x1 == width else t.x1 - tiling.halo
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1


def test_neighbours_overlap_by_halos_and_ramp() -> None:
    tiling = Tiling(tile=100, halo=10, ramp=20, multiple=16)
    rows = sorted({(t.y0, t.y1) for t in plan(777, 50, tiling)})
    assert len(rows) > 2
    assert all(b[0] > a[0] for a, b in itertools.pairwise(rows))
    assert all(a[1] - b[0] >= 2 * 10 + 20 for a, b in itertools.pairwise(rows))


def test_weights_sum_to_one_and_blend_smoothly() -> None:
    tiling = Tiling(tile=64, halo=4, ramp=12, multiple=16)
    ones = restore_tiled(np.ones_like, photo(200, 150), tiling)
    assert np.abs(ones - 1).max() < 1e-6
    # With alternating tiles of 0 and 1 the result is the weights: no jump, constant in between.
    calls = iter(range(10))
    steps = restore_tiled(
        lambda x: np.full_like(x, next(calls) % 2), photo(1, 150), Tiling(64, 4, 12, 1)
    )[0, 0, 0]
    assert np.abs(np.diff(steps)).max() < np.pi / 2 / 12 + 1e-6
    assert steps.min() == 0
    assert steps.max() == 1


def test_progress_counts_to_the_end_and_tiles_are_contiguous() -> None:
    seen: list[tuple[int, int]] = []

    def restore(x: Array) -> Array:
        assert x.flags.c_contiguous
        assert x.dtype == np.float32
        return x

    tiling = Tiling(64, 8, 8, 16)
    restore_tiled(restore, photo(100, 200), tiling, lambda i, n: seen.append((i, n)))
    total = len(plan(100, 200, tiling))
    assert seen == [(i, total) for i in range(1, total + 1)]


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ((95, 32, 16, 16), "tile of 96 or more"),
        ((0, 0, 0, 1), "tile of 1 or more"),
        ((64, -1, 0, 16), "0 or more"),
        ((64, 0, -1, 16), "0 or more"),
        ((64, 0, 0, 0), "1 or more"),
    ],
)
def test_bad_lengths(lengths: tuple[int, int, int, int], says: str) -> None:
    with pytest.raises(DeblurExportError, match=says):
        Tiling(*lengths)


def test_smallest_tile_works() -> None:
    tiling = Tiling(96, 32, 16, 16)
    image = photo(130, 120)
    assert np.abs(restore_tiled(lambda x: x, image, tiling) - image).max() < 1e-6


def test_bad_images_and_networks() -> None:
    tiling = Tiling(64, 8, 8, 16)
    for shape in [(3, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)]:
        with pytest.raises(DeblurExportError):
            restore_tiled(lambda x: x, np.zeros(shape, np.float32), tiling)
    with pytest.raises(DeblurExportError, match="the output for a tile"):
        restore_tiled(lambda x: x[..., 1:], photo(9, 9), tiling)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_several_images_at_scale_in_batches(batch: int) -> None:
    """Rows and columns have tiles of their own; a batch holds tiles of the same size."""
    images = np.random.default_rng(0).random((3, 1, 90, 71), np.float32)
    shapes = set()

    def enlarge(x: Array) -> Array:
        shapes.add(x.shape)
        return np.concatenate([x, 1 - x], axis=1).repeat(3, axis=2).repeat(3, axis=3)

    tilings = Tiling(40, 4, 6, 8), Tiling(32, 2, 0, 1)
    calls: list[tuple[int, int]] = []
    found = restore_tiled(
        enlarge, images, tilings, lambda *call: calls.append(call), scale=3, batch=batch
    )
    assert {shape[0] for shape in shapes} == {batch}
    assert {shape[2] for shape in shapes} == {40, 42}
    assert calls[-1][0] == calls[-1][1] == len(calls)
    np.testing.assert_allclose(found, enlarge(images), atol=1e-6)
