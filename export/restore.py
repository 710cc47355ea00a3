"""Restores photos with an artifact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblur_export.artifact import Artifact
from deblur_export.engine_file import engine_of, is_engine
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import inner_values
from deblur_export.export.images.batch import mask_path
from deblur_export.export.images.channels import joined, opacity, split
from deblur_export.export.images.enlarge import with_pixels
from deblur_export.export.images.overlay import write_overlay
from deblur_export.export.images.photo_file import Photo, read_photo
from deblur_export.export.images.photo_writer import write_photo
from deblur_export.export.images.tiling import in_batches, restore_tiled
from deblur_export.export.images.transparency import filled, hidden_pixels
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.runtimes.registry import DEFAULT, backend
from deblur_export.export.tile_choice import TileOptions, divide, least_batch, padded
from deblur_export.photo_memory import check_memory
from deblur_export.precision import GraphPrecision

# Of each pixel of an enlarged photo: in float32 twice, and its samples as they are encoded.
RESULT_BYTES = 12 + 12 + 8

Image = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Restored:
    """A restored photo.

    Attributes:
        rgb: [s H, s W, 3] float32 for the scale s of the network, not clamped.
        alpha: of a network of 4 channels, [s H, s W] float32, not clamped; None of others.
        mask: the blur mask [H, W] float32 in 0..1; None if it was not requested.
        notes: lines for the user.
    """

    rgb: Image
    alpha: Image | None
    mask: Image | None
    notes: tuple[str, ...]


class Restorer:
    """An artifact opened on a backend; several threads may use it.

    Args:
        artifact: an exported ONNX file, or an engine with a `runtime` that runs engines.
        mask: whether to return the blur mask of the network as well.
        runtime, precision, plugins: see `open_session`.

    Raises:
        DeblurExportError: the file cannot be loaded, or computes no mask.
    """

    def __init__(
        self,
        artifact: Artifact,
        mask: bool = False,
        runtime: str = DEFAULT,
        precision: GraphPrecision = "fp32",
        plugins: Sequence[Path] = (),
    ) -> None:
        self.artifact = artifact
        blur_mask = artifact.manifest.blur_mask
        self.extra = (blur_mask,) if mask and blur_mask is not None else ()
        if mask and is_engine(artifact.path):
            raise DeblurExportError(
                f"{artifact.path}: an engine has no values but its output; run --mask with "
                f"{engine_of(artifact).onnx.file}"
            )
        if mask and blur_mask is None:
            raise DeblurExportError(
                f"{artifact.path}: {artifact.title} makes no blur mask; only m2aenet does"
            )
        if not set(self.extra) <= set(inner_values(artifact.proto)):
            raise DeblurExportError(
                f"{artifact.path}: an edit has removed or renamed its blur mask; run --mask with "
                "the file as it was exported"
            )
        backend(runtime).check(artifact)
        # OpenVINO and TensorRT sessions keep state between calls.
        self._running = threading.Lock()
        self.session = open_session(artifact, runtime, self.extra, precision, plugins=plugins)

    def restore(
        self,
        rgb: Image,
        options: TileOptions,
        progress: Progress = lambda done, total: None,
        grey: bool = False,
        alpha: Image | None = None,
    ) -> Restored:
        """Restore one photo.

        A network of 1 channel restores red, green and blue one after the other, or a grey photo as
        it is.

        Args:
            rgb: [H, W, 3] float32 in 0..1.
            options: how to tile.
            progress: called with the number of finished tiles and of all tiles.
            grey: whether the three channels are equal.
            alpha: [H, W] float32 in 0..1 for a network of 4 channels; None for an opaque photo.

        Raises:
            DeblurExportError: the options do not fit the file, or the backend failed.
        """
        channels, scale = self.artifact.manifest.input.channels, self.artifact.manifest.output.scale
        height, width = rgb.shape[:2]
        division = divide(self.artifact, (height, width), options)
        images = padded(split(rgb, channels, grey, alpha), division.size, self.artifact)
        batch = least_batch(self.artifact)
        if division.tiling is None:
            progress(0, 1)
            whole = in_batches(self._infer, images, batch)
            progress(1, 1)
        else:
            whole = restore_tiled(self._infer, images, division.tiling, progress, scale, batch)
        restored = whole[..., : scale * height, : scale * width]
        colours, transparency = joined(restored[:, :channels], channels)
        mask = restored[0, channels] if self.extra else None
        notes = division.notes
        if len(images) > 1:
            notes += (
                "this network restores grey images: red, green and blue were restored one by one",
            )
        return Restored(colours, transparency, mask, notes)

    def _infer(self, images: Image) -> Image:
        """Restore images [N, C, H, W]; returns them, with the mask as a further channel if that was
        requested: [N, C or C + 1, s H, s W]."""
        with self._running:
            values = self.session.run({"image": images})
        restored, scale = values["restored"], self.artifact.manifest.output.scale
        if restored.shape != (*images.shape[:2], *(scale * side for side in images.shape[2:])):
            raise self._strange("its output has", restored, images)
        if not np.isfinite(restored).all():
            raise DeblurExportError(
                f"{self.artifact.path}: the restored image contains NaN or infinity; try fp32"
            )
        masks = [self._enlarged(values[name], images) for name in self.extra]
        return np.concatenate([restored, *masks], axis=1) if masks else restored

    def _strange(self, what: str, values: Image, image: Image) -> DeblurExportError:
        """The error about an output of another shape, of a damaged file."""
        return DeblurExportError(
            f"{self.artifact.path}: {what} the shape {list(values.shape)} for an image of "
            f"{list(image.shape)}: the file is damaged, or a tool has changed it; export it again"
        )

    def _enlarged(self, mask: Image, images: Image) -> Image:
        """Enlarge masks [N, 1, h, w] of padded images to full size and crop the padding."""
        if mask.ndim != 4 or 0 in mask.shape:
            raise self._strange("its mask has", mask, images)
        multiple = self.artifact.manifest.input.multiple
        factor = -(-images.shape[2] // multiple) * multiple // mask.shape[2]
        whole = mask.repeat(factor, axis=2).repeat(factor, axis=3)
        fits = min(np.subtract(whole.shape, images.shape)[2:]) >= 0
        if whole.shape[:2] != (len(images), 1) or not fits:
            raise self._strange("its mask has", mask, images)
        return whole[..., : images.shape[2], : images.shape[3]]


def restore_file(
    restorer: Restorer,
    source: Path,
    target: Path,
    options: TileOptions,
    progress: Progress = lambda done, total: None,
    quality: int | None = None,
) -> tuple[str, ...]:
    """Restore one image file; applies EXIF orientation, keeps alpha, bit depth and metadata.

    Colours under full transparency stay as they are, and have no effect on visible ones. A network
    of another scale enlarges alpha with the image. With a mask, NAME_mask.png beside `target` shows
    the mask in orange over the restored image. `quality` is as of `write_photo`. Returns notes for
    the user.

    Raises:
        DeblurExportError: the source cannot be read, the target cannot be written, or memory does
            not suffice.
    """
    try:
        photo = read_photo(source)
        _check_result_memory(restorer.artifact, source, photo)
        hidden = hidden_pixels(photo.alpha)
        visible = photo.rgb if hidden is None else filled(photo.rgb, hidden)
        restored = restorer.restore(visible, options, progress, photo.grey, opacity(photo.alpha))
        result = with_pixels(photo, restored.rgb, restored.alpha)
        written = write_photo(result, result.rgb, target, quality)
    except MemoryError as error:
        raise DeblurExportError(
            f"{source}: out of memory; close other programs, use smaller tiles (--tile 512), or "
            "crop or shrink the photo"
        ) from error
    notes = (*photo.notes, *restored.notes, *written)
    if restored.mask is None:
        return notes
    overlay = mask_path(target)
    write_overlay(restored.rgb, restored.mask, overlay)
    return (*notes, f"{restored.mask.mean():.0%} of the pixels detected as blurred: {overlay}")


def _check_result_memory(artifact: Artifact, source: Path, photo: Photo) -> None:
    """Check that an enlarged photo fits into memory; `read_photo` has checked one of scale 1."""
    scale = artifact.manifest.output.scale
    if scale > 1:
        height, width = (scale * side for side in photo.rgb.shape[:2])
        try:
            check_memory(width, height, RESULT_BYTES)
        except DeblurExportError as error:
            raise DeblurExportError(f"{source}: enlarged x{scale}, its {error}") from error
