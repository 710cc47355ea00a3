"""Runs another exporter's file on images of our own form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from deblur_export.errors import DeblurExportError
from deblur_export.export.adopt.ends import Ends, constant_inputs
from deblur_export.export.runtimes.onnxruntime_release import cannot_load
from deblur_export.export.runtimes.ort_options import session_options
from deblur_export.models.blocks.padding import pad_image
from deblur_export.models.image_spec import ImageSpec
from deblur_export.onnx_reading import first_line

Image = NDArray[np.float32]


def image(shape: Sequence[int], seed: int = 0) -> Image:
    """Noise over a gradient, in 0..1."""
    random = np.random.default_rng(seed).random(shape, np.float32)
    ramp = np.linspace(0, 1, shape[-1], dtype=np.float32)
    return np.asarray(0.5 * random + 0.5 * ramp, np.float32)


def padded(given: Image, images: ImageSpec) -> Image:
    """An image [N, C, H, W] in a size that a graph accepts."""
    whole: Image = pad_image(torch.from_numpy(given), images).numpy()
    return whole


class Runs:
    """A graph in ONNX Runtime on the CPU.

    Args:
        model: the graph.
        path: its file, for messages.
        ends: how it wants images.
        plain: leave out ONNX Runtime's own optimizations, so that the same operators give the same
            bits in another graph.
        threads: of ONNX Runtime; 0 leaves the number to it.

    Raises:
        DeblurExportError: ONNX Runtime cannot load it.
    """

    def __init__(
        self, model: onnx.ModelProto, path: Path, ends: Ends, plain: bool = False, threads: int = 0
    ) -> None:
        options = session_options(threads)
        if plain:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.constants = constant_inputs(model, ends.values or {})
        try:
            self.session: Any = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the bindings raise several unrelated types
            raise cannot_load(path, model, error) from error
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.path, self.ends = path, ends

    def values(self, given: Image, names: Sequence[str]) -> list[Any]:
        """Outputs, as they are, for an image [N, C, H, W] in 0..1.

        Raises:
            DeblurExportError: ONNX Runtime fails.
        """
        try:
            feed = {self.ends.input: self.ends.fed(given), **self.constants}
            found: list[Any] = self.session.run(list(names), feed)
        except Exception as error:  # as above
            size = "x".join(map(str, given.shape))
            raise DeblurExportError(
                f"{self.path}: ONNX Runtime fails on an image of {size}: {first_line(error)}"
            ) from error
        return found

    def restored(self, given: Image) -> Image:
        """The restored image [N, C, H, W] in about 0..1.

        Raises:
            DeblurExportError: ONNX Runtime fails.
        """
        return self.ends.restored(self.values(given, [self.ends.output])[0])

    def restored_any(self, given: Image, images: ImageSpec) -> Image:
        """The same for an image of any size, which is padded, and the result cropped.

        Raises:
            DeblurExportError: ONNX Runtime fails.
        """
        height, width = (side * images.scale for side in given.shape[2:])
        restored = self.restored(padded(given, images))[:, :, :height, :width]
        return np.ascontiguousarray(restored)

    def tried(self, shape: Sequence[int]) -> Image | None:
        """The restored image of `image(shape)`; None if ONNX Runtime fails."""
        try:
            return self.restored(image(shape))
        except (DeblurExportError, ValueError):
            return None
