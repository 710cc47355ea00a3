"""Restores photos with an artifact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblur_export.artifact import Artifact
from deblur_export.engine_file import engine_of, is_engine, shape_range
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import inner_values
from deblur_export.export.images.batch import mask_path
from deblur_export.export.images.overlay import write_overlay
from deblur_export.export.images.photo_file import read_photo
from deblur_export.export.images.photo_writer import write_photo
from deblur_export.export.images.tiling import Tiling, restore_tiled
from deblur_export.export.images.transparency import filled, hidden_pixels
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.runtimes.registry import DEFAULT, backend
from deblur_export.precision import GraphPrecision

# Images of up to this many pixels are not tiled; the largest network then needs about 3 GB.
WHOLE_PIXELS = 2_100_000
TILE = 1024
LARGEST_SIDE = 1 << 20  # of a file that accepts any size
# Networks that pool over the image have no exact halo; this many pixels hide the seams.
HALO_WITHOUT_FIELD = 32
RAMP = 64

Image = NDArray[np.float32]
Progress = Callable[[int, int], None]


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
class Restored:
    """A restored photo.

    Attributes:
        rgb: [H, W, 3] float32, not clamped.
        mask: the blur mask [H, W] float32 in 0..1; None if it was not requested.
        notes: lines for the user.
    """

    rgb: Image
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
        self, rgb: Image, options: TileOptions, progress: Progress = lambda done, total: None
    ) -> Restored:
        """Restore one photo.

        Args:
            rgb: [H, W, 3] float32 in 0..1.
            options: how to tile.
            progress: called with the number of finished tiles and of all tiles.

        Raises:
            DeblurExportError: the file has a fixed size and the photo has another one, or the
                backend failed.
        """
        self._check_size(rgb)
        image = rgb.transpose(2, 0, 1)[None]
        tiling = self._tiling(rgb.shape[0], rgb.shape[1], options)
        if tiling is None:
            progress(0, 1)
            restored = self._infer(np.ascontiguousarray(image))
            progress(1, 1)
        else:
            restored = restore_tiled(self._infer, image, tiling, progress)
        notes = self._tiling_notes(tiling) if tiling else ()
        mask = restored[0, 3] if self.extra else None
        return Restored(restored[0, :3].transpose(1, 2, 0), mask, notes)

    def _infer(self, image: Image) -> Image:
        """Restore an image [1, 3, H, W]; returns it, with the mask as a fourth channel if that was
        requested: [1, 3 or 4, H, W]."""
        with self._running:
            values = self.session.run({"image": image})
        restored = values["restored"]
        if restored.shape != image.shape:
            raise self._strange("its output has", restored, image)
        if not np.isfinite(restored).all():
            raise DeblurExportError(
                f"{self.artifact.path}: the restored image contains NaN or infinity; try fp32"
            )
        masks = [self._enlarged(values[name], image) for name in self.extra]
        return np.concatenate([restored, *masks], axis=1) if masks else restored

    def _strange(self, what: str, values: Image, image: Image) -> DeblurExportError:
        """The error about an output of another shape, of a damaged file."""
        return DeblurExportError(
            f"{self.artifact.path}: {what} the shape {list(values.shape)} for an image of "
            f"{list(image.shape)}: the file is damaged, or a tool has changed it; export it again"
        )

    def _enlarged(self, mask: Image, image: Image) -> Image:
        """Enlarge a mask [1, 1, h, w] of the padded image to full size and crop the padding."""
        if mask.ndim != 4 or 0 in mask.shape:
            raise self._strange("its mask has", mask, image)
        multiple = self.artifact.manifest.input.multiple
        factor = -(-image.shape[2] // multiple) * multiple // mask.shape[2]
        whole = mask.repeat(factor, axis=2).repeat(factor, axis=3)
        if whole.shape[:2] != (1, 1) or min(np.subtract(whole.shape, image.shape)[2:]) < 0:
            raise self._strange("its mask has", mask, image)
        return whole[..., : image.shape[2], : image.shape[3]]

    def _check_size(self, rgb: Image) -> None:
        batch, size = self.artifact.manifest.input.batch, self.artifact.manifest.input.size
        if size is not None and size != rgb.shape[:2]:
            raise DeblurExportError(
                f"{self.artifact.path} accepts {size[1]}x{size[0]} images only, not "
                f"{rgb.shape[1]}x{rgb.shape[0]}; export without --shape for any size"
            )
        if batch not in (None, 1):
            raise DeblurExportError(
                f"{self.artifact.path} accepts batches of {batch}; export with batch 1 or dynamic"
            )

    def _tiling(self, height: int, width: int, options: TileOptions) -> Tiling | None:
        fixed = self.artifact.manifest.input.size is not None
        limits = shape_range(self.artifact)
        most = LARGEST_SIDE if limits is None else min(limits[1][2:])
        within = max(height, width) <= most and height * width <= WHOLE_PIXELS
        automatic = options.tile is None and within
        if fixed or automatic or options.tile == 0:
            return None
        field = self.artifact.manifest.tile.field
        halo = HALO_WITHOUT_FIELD if field is None else field
        overlap = 2 * halo + RAMP if options.overlap is None else options.overlap
        multiple = self.artifact.manifest.tile.period
        halo = min(halo, overlap // 2)
        # The last tile of a row may be wider by less than the multiple.
        tile = options.tile or min(TILE, most - multiple + 1)
        return Tiling(tile, halo, overlap - 2 * halo, multiple)

    def _tiling_notes(self, tiling: Tiling) -> tuple[str, ...]:
        field = self.artifact.manifest.tile.field
        if field is None and "train_size" in self.artifact.manifest.model.arguments:
            return (
                "restored in tiles: this network (--local) pools over windows around each pixel, "
                "whose effect adds up from block to block, so the result differs slightly from an "
                "untiled run (--tile 0)",
            )
        if field is None:
            return (
                "restored in tiles: this network pools over the whole image, so the result "
                "differs from an untiled run (--tile 0)",
            )
        if tiling.halo < field:
            return (
                f"restored in tiles with an overlap below twice the receptive field of {field} "
                "pixels: the result differs from an untiled run near tile borders",
            )
        return ()


def restore_file(
    restorer: Restorer,
    source: Path,
    target: Path,
    options: TileOptions,
    progress: Progress = lambda done, total: None,
    quality: int | None = None,
) -> tuple[str, ...]:
    """Restore one image file; applies EXIF orientation, keeps alpha, bit depth and metadata.

    Colours under full transparency stay as they are, and have no effect on visible ones. With a
    mask, NAME_mask.png beside `target` shows the mask in orange over the restored image. `quality`
    is as of `write_photo`. Returns notes for the user.

    Raises:
        DeblurExportError: the source cannot be read, the target cannot be written, or memory does
            not suffice.
    """
    try:
        photo = read_photo(source)
        hidden = hidden_pixels(photo.alpha)
        visible = photo.rgb if hidden is None else filled(photo.rgb, hidden)
        restored = restorer.restore(visible, options, progress)
        if hidden is not None:
            restored.rgb[hidden] = photo.rgb[hidden]
        written = write_photo(photo, restored.rgb, target, quality)
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
