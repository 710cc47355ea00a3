"""Force a mask of given coverage on a network, while its own mask is still computed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deblur_export.artifact import ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import copied
from deblur_export.export.timing.jobs import FORCED_CHOICE, OWN_CHOICE

Mask = NDArray[np.float32]
BLOBS = 16  # the standard deviation of blobs is the longer side divided by this


def blob_mask(height: int, width: int, coverage: float, seed: int = 0) -> Mask:
    """A mask of blobs: the pixels where a smooth Gaussian field is above a quantile.

    Args:
        height, width: of the mask in pixels.
        coverage: fraction of ones in 0..1, which is met exactly.
        seed: of the field. With the same seed, a mask contains those of smaller coverage.

    Returns:
        float32 [1, 1, height, width] of 0 and 1.
    """
    field = np.random.default_rng(seed).standard_normal((height, width))
    smooth = cv2.GaussianBlur(field, (0, 0), max(height, width) / BLOBS)
    order = np.argsort(-smooth, axis=None, kind="stable")
    mask = np.zeros(height * width, np.float32)
    mask[order[: round(coverage * mask.size)]] = 1
    return mask.reshape(1, 1, height, width)


def dilated_coverage(mask: Mask) -> float:
    """Fraction of pixels with a one in their 3x3 neighbourhood, which a pruned convolution reads.

    Args:
        mask: float32 [1, 1, H, W] of 0 and 1.
    """
    return float(cv2.dilate(mask[0, 0], np.ones((3, 3), np.uint8)).mean())


def mask_shape(net: nn.Module, decision: str, height: int, width: int) -> tuple[int, int]:
    """Height and width of the mask for an image of height x width pixels, on the meta device."""
    shapes: list[torch.Size] = []
    on_meta = copy.deepcopy(net).to("meta")
    on_meta.get_submodule(decision).register_forward_hook(
        lambda module, inputs, own: shapes.append(own.shape)
    )
    with torch.no_grad():
        on_meta(torch.empty(1, 3, height, width, device="meta"))
    _, _, h, w = shapes[0]
    return h, w


class ForcedChoice(nn.Module):
    """A network whose decision returns a choice that is given as the second argument."""

    def __init__(self, net: nn.Module, decision: str) -> None:
        super().__init__()
        self.net = net
        net.get_submodule(decision).register_forward_hook(self._decide)

    def _decide(self, module: nn.Module, inputs: Any, own: Tensor) -> Tensor:
        self.own = own
        return self.choice.to(own.dtype)

    def forward(self, image: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        """image [N, 3, H, W], choice [N, 1, h, w] -> the restored image [N, 3, H, W] and the own
        choice of the decision, an output so that it is not optimized away."""
        self.choice = choice
        return self.net(image), self.own


def force_choice(path: Path, decision: str, target: Path) -> None:
    """Write a copy of an ONNX file in which a new input replaces the mask.

    The input `FORCED_CHOICE`, float32 [N, 1, h, w], replaces the value `decision`. The original
    value becomes the output `OWN_CHOICE`, so that it is still computed.

    Args:
        path: the file.
        decision: name of the value.
        target: the file to write.

    Raises:
        DeblurExportError: the graph has no such value.
    """
    model = copied(ModelFile(path).proto)
    graph = model.graph
    indices = [i for i, node in enumerate(graph.node) if decision in node.output]
    if not indices:
        raise DeblurExportError(f"{path}: no value '{decision}' in its graph to force")
    (index,) = indices
    outputs = graph.node[index].output
    outputs[list(outputs).index(decision)] = OWN_CHOICE
    forced = onnx.helper.make_node("CastLike", [FORCED_CHOICE, OWN_CHOICE], [decision])
    graph.node.insert(index + 1, forced)
    sizes = ("mask_batch", 1, "mask_height", "mask_width")
    given, own = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        for name in (FORCED_CHOICE, OWN_CHOICE)
    )
    graph.input.append(given)
    graph.output.append(own)
    target.write_bytes(model.SerializeToString())
