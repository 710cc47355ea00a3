"""Images to calibrate on: crops in which blurred and sharp regions are both represented."""

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
from deblur_export.export.images.photo_file import read_photo
from deblur_export.export.restore import MASK
from deblur_export.export.runtimes.open import open_session
from deblur_export.image_formats import SUFFIXES
from deblur_export.models.training.data.crop import gradient
from deblur_export.models.training.data.dataset import Dataset

CROP = 256  # pixels a side
CHOICE = 3  # candidates for each crop that is taken
Image = NDArray[np.float32]  # [N, 3, H, W] in 0..1
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Crops:
    """Images of one size, what they are, and the SHA-256 of their pixels."""

    images: tuple[Image, ...]
    names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(repr(image.shape).encode() + image.tobytes())
        return digest.hexdigest()

    def take(self, numbers: Sequence[int]) -> Crops:
        """Some of them, in this order."""
        return Crops(tuple(self.images[n] for n in numbers), tuple(self.names[n] for n in numbers))


@dataclass(frozen=True)
class Pairs:
    """Blurred images and the truth, each [1, 3, H, W] in 0..1."""

    blurred: tuple[Image, ...]
    sharp: tuple[Image, ...]


def photo_crops(
    folder: Path, artifact: Artifact, count: int, side: int, progress: Progress, seed: int = 0
) -> Crops:
    """`count` crops of the photos of a folder, evenly spread from sharp to blurred.

    What is blurred the network's own mask says; a network without one goes by local contrast.
    Drawn from CHOICE times as many random places; the same seed gives the same crops.

    Raises:
        DeblurExportError: no folder, no photos, or none as large as a crop.
    """
    files = photo_files(folder)
    height, width = crop_size(artifact, side)
    rng = np.random.default_rng(seed)
    each = -(-CHOICE * count // len(files))
    images, names = list[Image](), list[str]()
    for number, file in enumerate(files, 1):
        progress(f"reading photos: {number} of {len(files)}")
        rgb = read_photo(file).rgb
        last = rgb.shape[0] - height, rgb.shape[1] - width
        if min(last) < 0:
            continue
        for top, left in np.unique(rng.integers(np.add(last, 1), size=(each, 2)), axis=0):
            crop = rgb[top : top + height, left : left + width].transpose(2, 0, 1)[None]
            images.append(np.ascontiguousarray(crop))
            names.append(f"{file.name} {width}x{height}+{left}+{top}")
    if not images:
        raise DeblurExportError(
            f"{folder}: all {len(files)} photos are smaller than {width}x{height}; give larger "
            "ones, or a smaller side with deblur-export calibrate --crop"
        )
    return spread(Crops(tuple(images), tuple(names)), artifact, count, progress)


def photo_files(folder: Path) -> list[Path]:
    """The photos of a folder, by name.

    Raises:
        DeblurExportError: no folder, or no photos.
    """
    if not folder.is_dir():
        raise DeblurExportError(f"{folder}: no such folder; --images takes a folder of photos")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    if not files:
        raise DeblurExportError(f"{folder}: no photos inside ({', '.join(SUFFIXES)})")
    return files


def dataset_crops(dataset: Dataset, artifact: Artifact, count: int, progress: Progress) -> Crops:
    """`count` blurred images of a dataset, spread as `photo_crops` does."""
    numbers = evenly(len(dataset), CHOICE * count)
    images = tuple(_planes(dataset.blurred[n]) for n in numbers)
    names = tuple(f"{dataset.folder.name} {n}" for n in numbers)
    return spread(Crops(images, names), artifact, count, progress)


def dataset_pairs(dataset: Dataset, count: int) -> Pairs:
    """`count` pairs spread evenly over a dataset."""
    numbers = evenly(len(dataset), count)
    blurred, sharp = (
        tuple(_planes(f[n]) for n in numbers) for f in (dataset.blurred, dataset.sharp)
    )
    return Pairs(blurred, sharp)


def crop_size(artifact: Artifact, side: int) -> tuple[int, int]:
    """Height and width: what the file was exported for, else `side`.

    Raises:
        DeblurExportError: the file takes larger batches only.
    """
    batch = artifact.manifest.input.batch
    if batch not in (None, 1):
        raise DeblurExportError(
            f"{artifact.path} takes batches of {batch}; export with batch 1 or dynamic"
        )
    return artifact.manifest.input.size or (side, side)


def open_dataset(folder: Path, part: str, artifact: Artifact) -> Dataset:
    """A part of a dataset whose images the file takes.

    Raises:
        DeblurExportError: not a dataset, or its images are of another size.
    """
    dataset = Dataset(folder, part)
    height, width = crop_size(artifact, dataset.size)
    if dataset.mask.shape[1:] != (height, width):
        raise DeblurExportError(
            f"{artifact.path} takes {width}x{height} images, those of {folder} are of another "
            "size; export without --shape"
        )
    return dataset


def spread(crops: Crops, artifact: Artifact, count: int, progress: Progress) -> Crops:
    """`count` of the crops at equal steps of their order from sharp to blurred."""
    masked = MASK in inner_values(artifact.proto)
    session = open_session(artifact, extra_outputs=(MASK,)) if masked else None
    amounts = []
    for number, image in enumerate(crops.images, 1):
        progress(f"looking for blur: {number} of {len(crops.images)}")
        if session is not None:
            amounts.append(float(session.run({"image": image})[MASK].mean()))
        else:
            amounts.append(-float(gradient(255 * image[0, 1]).mean()))
    order = np.argsort(amounts, kind="stable")
    return crops.take([int(order[place]) for place in evenly(len(order), count)])


def evenly(length: int, count: int) -> list[int]:
    """At most `count` numbers below `length`, at equal steps from end to end."""
    return [int(n) for n in np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))]


def _planes(image: NDArray[np.uint8]) -> Image:
    """[H, W, 3] -> [1, 3, H, W] in 0..1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
