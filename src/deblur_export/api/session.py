"""`open_session`: a file, loaded once, that restores arrays and photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deblur_export.api.common import PathLike, as_artifact
from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.batch import check_target
from deblur_export.export.restore import Restorer, restore_file
from deblur_export.export.runtimes.choose import choose_runtime
from deblur_export.export.tile_choice import TileOptions
from deblur_export.outputs import check_outputs
from deblur_export.precision import GraphPrecision

Pixels = TypeVar("Pixels", bound=np.generic)
LARGEST = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
FLOATING = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.float64))


class PhotoSession:
    """An artifact opened on a backend. Calling it restores an image; several threads may use it.

    Args:
        artifact: an exported ONNX file or an engine.
        runtime, precision, plugins: see `open_session`.
        options: how large images are tiled.

    Attributes:
        title: the runtime, its version and precision.
        notes: what the user should know, one line each.

    Raises:
        DeblurExportError: the runtime is not installed or cannot load the file.
    """

    def __init__(
        self,
        artifact: Artifact,
        runtime: str,
        precision: GraphPrecision,
        plugins: Sequence[Path],
        options: TileOptions,
    ) -> None:
        chosen = choose_runtime(runtime, artifact, precision)
        self._restorer = Restorer(artifact, False, chosen.runtime, precision, plugins)
        self._options = options
        self.artifact = artifact
        self.title = self._restorer.session.title
        reason = (f"runtime: {chosen.reason}",) if chosen.reason else ()
        self.notes = (*reason, *artifact.notes, *self._restorer.session.notes)

    def __call__(self, image: NDArray[Pixels]) -> NDArray[Pixels]:
        """Restore an image, or each of a batch.

        Args:
            image: RGB [H, W, 3] or [N, H, W, 3] of any size; uint8 in 0..255, uint16 in 0..65535,
                or float16, float32 or float64 in 0..1. For a network of 1 channel also grey,
                [H, W, 1], for one of 4 also RGB and alpha, [H, W, 4].

        Returns:
            An array of the same dtype, and of the same shape but for H and W, which are those of
            the image times the scale of the network. Integers are rounded and clipped,
            floating-point values are neither.

        Raises:
            DeblurExportError: another shape or dtype, NaN or infinity, or the runtime failed.
        """
        image = np.asarray(image)
        channels = {3, self.artifact.manifest.input.channels}
        if image.ndim not in (3, 4) or image.shape[-1] not in channels or 0 in image.shape:
            known = " or ".join(f"[H, W, {c}] or [N, H, W, {c}]" for c in sorted(channels))
            raise DeblurExportError(f"an image is {known}, RGB, not {list(image.shape)}")
        if image.ndim == 4:
            return np.stack([self(one) for one in image])
        return self._converted(self._restore(_to_float(image)), image.dtype)

    def restore_file(
        self, source: PathLike, target: PathLike, *, quality: int | None = None
    ) -> tuple[str, ...]:
        """Restore a photo and write it; depth, alpha, metadata and the fineness of storing are kept
        where the format of `target` can hold them, and the EXIF orientation is applied.

        Args:
            source: the photo.
            target: the file to write, which may exist.
            quality: of a JPEG or WebP file, 1..100; None is no less than the photo's, at least 95,
                and lossless WebP for a lossless photo.

        Returns:
            Notes for the user, one line each.

        Raises:
            DeblurExportError: the photo cannot be read, the result cannot be written or would
                replace the photo, or its format has no quality.
        """
        photo, restored = Path(source), Path(target)
        check_outputs([("the restored photo", restored)], [photo, *self.artifact.files])
        check_target(restored, quality)
        return restore_file(self._restorer, photo, restored, self._options, quality=quality)

    def _restore(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of [H, W, C] with 1, 3 or 4 channels; returns as many."""
        count = image.shape[2]
        rgb = image.repeat(3, axis=2) if count == 1 else image[..., :3]
        alpha = image[..., 3] if count == 4 else None
        restored = self._restorer.restore(rgb, self._options, grey=count == 1, alpha=alpha)
        if count == 4:
            assert restored.alpha is not None
            return np.dstack([restored.rgb, restored.alpha])
        return restored.rgb[..., :count]

    @staticmethod
    def _converted(rgb: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        if dtype in LARGEST:
            return np.rint(np.clip(rgb, 0, 1) * LARGEST[dtype]).astype(dtype)
        return rgb.astype(dtype)


def _to_float(image: NDArray[Any]) -> NDArray[np.float32]:
    if image.dtype in LARGEST:
        return image.astype(np.float32) / np.float32(LARGEST[image.dtype])
    if image.dtype not in FLOATING:
        raise DeblurExportError(
            f"an image is uint8, uint16, float16, float32 or float64, not {image.dtype}"
        )
    if not np.isfinite(image).all():
        raise DeblurExportError("the image holds NaN or infinity")
    return image.astype(np.float32)


def open_session(
    file: Artifact | PathLike,
    *,
    runtime: str = "auto",
    precision: GraphPrecision = "fp32",
    tile: int | None = None,
    overlap: int | None = None,
    plugins: Sequence[PathLike] = (),
) -> PhotoSession:
    """Load a file for restoring images; the options of `deblur-export run`.

    Args:
        file: an artifact or its path: ONNX, or an engine of `build_engine`.
        runtime: what runs the file; "auto" selects the best that is installed (`notes` say why).
        precision: of the arithmetic, OpenVINO only; ONNX Runtime computes as the graph says.
        tile: side of tiles in pixels, 0 for never; None tiles images beyond 2 megapixels.
        overlap: overlap of tiles in pixels; None is twice the receptive field plus a ramp.
        plugins: libraries of custom ops that an engine was built with.

    Raises:
        DeblurExportError: the file is missing or not written by this package, the runtime is not
            installed, or it cannot load the file.
    """
    options = TileOptions(tile, overlap)
    libraries = tuple(map(Path, plugins))
    return PhotoSession(as_artifact(file), runtime, precision, libraries, options)
