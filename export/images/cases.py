"""Inputs for a parity check: random images of unusual sizes, and photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblur_export.artifact import Artifact
from deblur_export.engine_file import shape_range
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.channels import network_image
from deblur_export.export.images.photo_file import read_photo
from deblur_export.photo_folder import LeaveOut, photos_in, usable

RANDOM_SIZES = ((1, 64, 96), (2, 33, 47), (1, 121, 75), (1, 5, 3))  # batch, height and width
FIXED = 3  # number of images of one size
PHOTO_SIDE = 512


@dataclass(frozen=True)
class Case:
    """An input [N, C, H, W], float32 in 0..1, with its name in the report; `photo` says that it is
    one and not noise."""

    name: str
    image: NDArray[np.float32]
    photo: bool = False


def cases_for(
    artifact: Artifact, photos: Path | None = None, leave_out: LeaveOut = lambda note: None
) -> list[Case]:
    """Random images of sizes that an artifact supports, and the photos of a folder.

    Args:
        artifact: an ONNX file or engine.
        photos: folder of photos to add; None adds none.
        leave_out: see `photo_cases`.

    Raises:
        DeblurExportError: see `photo_cases`; or the manifest has a strange size of training crops.
    """
    from deblur_export.models.blocks.naf import tlc_window

    shape, limits = artifact.manifest.input.shape, shape_range(artifact)
    if limits is None:
        train_size = artifact.manifest.model.arguments.get("train_size")
        try:
            window = tlc_window(train_size, 0)
        except (TypeError, ValueError) as error:
            raise DeblurExportError(
                f"{artifact.path}: not a manifest: model.arguments.train_size is no size of "
                "training crops; export again"
            ) from error
        cases = random_cases(shape, window)
    else:
        cases = range_cases(*limits)
    return cases if photos is None else cases + photo_cases(photos, shape, limits, leave_out)


def range_cases(smallest: Sequence[int], largest: Sequence[int]) -> list[Case]:
    """Random images within the smallest and largest shape (N, C, H, W) that an engine supports."""
    batch, channels, height, width = smallest
    shapes = (
        (batch, channels, height, width),
        (batch, channels, min(height + 33, largest[2]), min(width + 47, largest[3])),
        (
            max(batch, min(2, largest[0])),
            channels,
            min(height + 57, largest[2]),
            min(width + 11, largest[3]),
        ),
    )
    return [_random_case(seed, shape) for seed, shape in enumerate(dict.fromkeys(shapes))]


def random_cases(shape: Sequence[int | str], window: int | None = None) -> list[Case]:
    """Images of noise over a smooth pattern, of several sizes and with a batch of 2 if possible.

    Args:
        shape: (N, C, H, W) of the input: numbers, or names of dynamic dimensions.
        window: side of the window of local pooling in pixels, or None. Local pooling has no effect
            in images smaller than the window, so a larger image is added.
    """
    batch, channels, *size = shape
    free = isinstance(size[0], str)
    sizes = list(RANDOM_SIZES) if free else [(n, *map(int, size)) for n, *_ in RANDOM_SIZES[:FIXED]]
    if free and window is not None:
        sizes.append((1, window + 9, window + 41))
    shapes = [
        (n if isinstance(batch, str) else int(batch), int(channels), height, width)
        for n, height, width in sizes
    ]
    return [_random_case(seed, shape) for seed, shape in enumerate(shapes)]


def _random_case(seed: int, shape: tuple[int, ...]) -> Case:
    n, c, h, w = shape
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    waves = [np.sin(7 * y + k) * np.cos(5 * x - k) for k in range(n * c)]
    smooth = 0.5 + 0.35 * np.stack(waves).reshape(shape)
    noise = 0.3 * (generator.random(shape) - 0.5)
    image = np.clip(smooth + noise, 0, 1).astype(np.float32)
    return Case(f"random {'x'.join(map(str, shape))}", image)


def photo_cases(
    folder: Path,
    shape: Sequence[int | str],
    limits: tuple[Sequence[int], Sequence[int]] | None = None,
    leave_out: LeaveOut = lambda note: None,
) -> list[Case]:
    """The photos of a folder, cropped around their centre to at most 512 x 512 pixels.

    Args:
        folder: contains the photos.
        shape: shape of the input: numbers, or names of dynamic dimensions.
        limits: smallest and largest shape (N, C, H, W) of an engine; crops are not larger.
        leave_out: is told of each photo that cannot be read or is too small.

    Raises:
        DeblurExportError: the folder does not exist or has no photos, or all of them are left out.
    """
    files = photos_in(folder)
    most = (PHOTO_SIDE, PHOTO_SIDE) if limits is None else limits[1][2:]
    return usable(files, lambda file: _photo_case(file, shape, most), leave_out)


def _photo_case(file: Path, shape: Sequence[int | str], most: Sequence[int]) -> Case:
    photo = read_photo(file)
    rgb = photo.rgb
    height, width = (
        size if isinstance(size, int) else min(PHOTO_SIDE, limit, own)
        for size, limit, own in zip(shape[2:], most, rgb.shape[:2], strict=True)
    )
    if rgb.shape[0] < height or rgb.shape[1] < width:
        raise DeblurExportError(
            f"{file}: {rgb.shape[1]}x{rgb.shape[0]} is smaller than the input size "
            f"{width}x{height} of the exported file"
        )
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    whole = network_image(rgb, int(shape[1]), photo.grey, photo.alpha)
    crop = whole[..., top : top + height, left : left + width]
    batch = shape[0] if isinstance(shape[0], int) else 1
    image = np.repeat(np.ascontiguousarray(crop), batch, axis=0)
    return Case(f"{file.name} {width}x{height}", image, photo=True)
