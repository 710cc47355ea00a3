"""Images to calibrate on: crops that represent both blurred and sharp regions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import inner_values
from deblur_export.export.images.channels import network_image
from deblur_export.export.images.photo_file import read_photo
from deblur_export.export.runtimes.open import open_session
from deblur_export.models.training.data.crop import gradient
from deblur_export.models.training.data.dataset import Dataset
from deblur_export.photo_folder import LeaveOut, photos_in

CROP = 256  # side of a crop in pixels
CHOICE = 3  # number of candidates for each crop
Image = NDArray[np.float32]  # [N, C, H, W] in 0..1
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Crops:
    """Images [N, C, H, W] in 0..1 of the same size, and their names."""

    images: tuple[Image, ...]
    names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels as hexadecimal digits."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(repr(image.shape).encode() + image.tobytes())
        return digest.hexdigest()

    def take(self, indices: Sequence[int]) -> Crops:
        """The images with these indices, in this order."""
        return Crops(tuple(self.images[n] for n in indices), tuple(self.names[n] for n in indices))


@dataclass(frozen=True)
class Pairs:
    """Blurred images and their ground truth, each [1, C, H, W] in 0..1."""

    blurred: tuple[Image, ...]
    sharp: tuple[Image, ...]


def photo_crops(
    folder: Path,
    artifact: Artifact,
    count: int,
    side: int,
    progress: Progress,
    seed: int = 0,
    leave_out: LeaveOut = lambda note: None,
) -> Crops:
    """Cut crops from the photos of a folder, spread evenly from sharp to blurred.

    CHOICE times as many crops are cut at random positions and ranked by the mask of the network, or
    by local contrast if it has none.

    Args:
        folder: contains the photos.
        artifact: the file to calibrate.
        count: number of crops.
        side: of the crops in pixels, unless the file has a fixed input size.
        progress: called with a line of text for each photo.
        seed: the same seed gives the same crops.
        leave_out: is told of each photo that cannot be read.

    Raises:
        DeblurExportError: the folder does not exist, has no photos, or none as large as a crop.
    """
    files = photos_in(folder)
    height, width = crop_size(artifact, side)
    channels = artifact.manifest.input.channels
    rng = np.random.default_rng(seed)
    each = -(-CHOICE * count // len(files))
    images, names, errors = list[Image](), list[str](), list[DeblurExportError]()
    for number, file in enumerate(files, 1):
        progress(f"reading photos: {number} of {len(files)}")
        try:
            photo = read_photo(file)
        except DeblurExportError as error:
            errors.append(error)
            continue
        last = photo.rgb.shape[0] - height, photo.rgb.shape[1] - width
        if min(last) < 0:
            continue
        whole = network_image(photo.rgb, channels, photo.grey, photo.alpha)
        for top, left in np.unique(rng.integers(np.add(last, 1), size=(each, 2)), axis=0):
            crop = whole[..., top : top + height, left : left + width]
            images.append(np.ascontiguousarray(crop))
            names.append(f"{file.name} {width}x{height}+{left}+{top}")
    if len(errors) == len(files):
        raise errors[0]
    for reason in errors:
        leave_out(f"left out: {reason}")
    if not images:
        raise DeblurExportError(
            f"{folder}: all {len(files)} photos are smaller than {width}x{height}; give larger "
            "ones, or a smaller side with deblur-export calibrate --crop"
        )
    return spread(Crops(tuple(images), tuple(names)), artifact, count, progress)


def dataset_crops(dataset: Dataset, artifact: Artifact, count: int, progress: Progress) -> Crops:
    """`count` blurred images of a dataset, spread evenly from sharp to blurred as in
    `photo_crops`."""
    indices = evenly(len(dataset), CHOICE * count)
    channels = artifact.manifest.input.channels
    images = tuple(_to_nchw(dataset.blurred[n], channels) for n in indices)
    names = tuple(f"{dataset.folder.name} {n}" for n in indices)
    return spread(Crops(images, names), artifact, count, progress)


def dataset_pairs(dataset: Dataset, count: int, channels: int = 3) -> Pairs:
    """`count` pairs, spread evenly over a dataset."""
    indices = evenly(len(dataset), count)
    blurred, sharp = (
        tuple(_to_nchw(f[n], channels) for n in indices) for f in (dataset.blurred, dataset.sharp)
    )
    return Pairs(blurred, sharp)


def crop_size(artifact: Artifact, side: int) -> tuple[int, int]:
    """Height and width in pixels: the input size of the file if it is fixed, or else `side`.

    Raises:
        DeblurExportError: the file has a fixed batch size other than 1.
    """
    batch = artifact.manifest.input.batch
    if batch not in (None, 1):
        raise DeblurExportError(
            f"{artifact.path} needs batches of {batch}; export with batch 1 or dynamic"
        )
    return artifact.manifest.input.size or (side, side)


def open_dataset(folder: Path, split: str, artifact: Artifact) -> Dataset:
    """Open a split of a dataset whose images fit the input of the file.

    Raises:
        DeblurExportError: the folder is not a dataset, its images have another size, or the
            network enlarges them.
    """
    scale = artifact.manifest.output.scale
    if scale > 1:
        raise DeblurExportError(
            f"{artifact.path} enlarges x{scale}, and the sharp images of a dataset are as large as "
            "its blurred ones; calibrate on photos, with --images"
        )
    dataset = Dataset(folder, split)
    height, width = crop_size(artifact, dataset.size)
    if dataset.mask.shape[1:] != (height, width):
        raise DeblurExportError(
            f"{artifact.path} needs {width}x{height} images, and those of {folder} have another "
            "size; export without --shape"
        )
    return dataset


def spread(crops: Crops, artifact: Artifact, count: int, progress: Progress) -> Crops:
    """Select `count` crops at equal steps of their order from sharp to blurred."""
    mask = artifact.manifest.blur_mask
    if mask not in inner_values(artifact.proto):  # an edit has removed it
        mask = None
    session = None if mask is None else open_session(artifact, extra_outputs=(mask,))
    amounts = []
    for number, image in enumerate(crops.images, 1):
        progress(f"looking for blur: {number} of {len(crops.images)}")
        if session is not None and mask is not None:
            amounts.append(float(session.run({"image": image})[mask].mean()))
        else:
            amounts.append(-float(gradient(255 * image[0, min(1, image.shape[1] - 1)]).mean()))
    order = np.argsort(amounts, kind="stable")
    return crops.take([int(order[index]) for index in evenly(len(order), count)])


def evenly(length: int, count: int) -> list[int]:
    """At most `count` indices below `length`, at equal steps from the first to the last."""
    return [int(n) for n in np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))]


def _to_nchw(image: NDArray[np.uint8], channels: int) -> Image:
    """Convert a uint8 image [H, W, 3] to float32 [1, channels, H, W] in 0..1."""
    return network_image(image.astype(np.float32) / np.float32(255), channels)
