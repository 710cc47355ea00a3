"""Compare a translated graph with its network, at sizes other than the one it was captured at.

The exported program was compared already; between it and the graph stand torch's decompositions,
which may take the sample's sizes for constants, and the translation of each operator.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn

from deblur_export.engine_record import FixedShape
from deblur_export.export.capture import Dimension
from deblur_export.export.graph import message_of
from deblur_export.export.to_onnx import lower
from deblur_export.models.image_spec import ImageSpec
from deblur_export.plugins.libraries import cpu
from deblur_export.shown import shown

# Largest root mean square of the difference relative to that of the output. Rounding stays far
# below; a choice that falls otherwise changes few pixels, a size that was baked in changes most.
TOLERANCE = 1e-3
LENGTH = 200  # characters of a runtime's message


def translation_failure(
    graph: ir.Model,
    net: nn.Module,
    images: ImageSpec,
    free: tuple[Dimension, ...],
    shape: FixedShape | None,
) -> str | None:
    """Why a graph is not its network; None if it is.

    Args:
        graph: what `to_onnx.trace` gave for the network.
        net: maps images [N, C, H, W] of any size.
        images: which it accepts.
        free: the dimensions of any size.
        shape: the shape of the graph's input, where it is fixed.
    """
    content = message_of(lower(graph, "portable")).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        return f"ONNX Runtime does not load it: {_line(error)}"
    generator = torch.Generator().manual_seed(0)
    for size in _shapes(images, free, shape):
        image = torch.rand(size, generator=generator)
        with torch.no_grad(), cpu.switched_off():
            expected = copy.deepcopy(net)(image.clone()).numpy()
        text = "x".join(map(str, size))
        try:
            (found,) = session.run(None, {"image": image.numpy()})
        except Exception as error:  # as above
            return f"at {text} it fails: {_line(error)}"
        if found.shape != expected.shape:
            return f"at {text} it gives {'x'.join(map(str, found.shape))}"
        change = float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))
        if not change <= TOLERANCE:
            return f"at {text} it differs by {change:.1e} of the output (root mean square)"
    return None


def _shapes(
    images: ImageSpec, free: tuple[Dimension, ...], shape: FixedShape | None
) -> Iterator[FixedShape]:
    if shape is not None:
        yield shape
        return
    step, least = images.multiple, images.padded(1, 1)[0]
    yield (1, images.channels, least, least)
    sides = (least + 3 * step, least + step)
    # A size that needs padding, if any does, and that nothing was captured or compared at.
    height, width = (side + step - step // 2 for side in sides)
    batch = 2 if "batch" in free else 1
    yield (batch, images.channels, height, height if images.square else width)


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), LENGTH)
