"""Force a mask of a given coverage upon a network, with its own decision still paid for."""

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
from deblur_export.models.decisions import decisions

Mask = NDArray[np.float32]
MASK = "mask"  # M2AENet's decision: which pixels are blurred
BLOBS = 16  # blobs have a standard deviation of the longer side by this


def blob_mask(height: int, width: int, coverage: float, seed: int = 0) -> Mask:
    """A smooth Gaussian field above its quantile, [1, 1, height, width] of 0 and 1.

    Args:
        height, width: of the mask.
        coverage: share of ones in 0..1, met to the pixel.
        seed: of the field; a larger coverage of one seed contains the smaller ones.
    """
    field = np.random.default_rng(seed).standard_normal((height, width))
    smooth = cv2.GaussianBlur(field, (0, 0), max(height, width) / BLOBS)
    order = np.argsort(-smooth, axis=None, kind="stable")
    mask = np.zeros(height * width, np.float32)
    mask[order[: round(coverage * mask.size)]] = 1
    return mask.reshape(1, 1, height, width)


def dilated_coverage(mask: Mask) -> float:
    """Share of pixels with a one in their 3x3 neighbourhood: what a pruned convolution reads."""
    return float(cv2.dilate(mask[0, 0], np.ones((3, 3), np.uint8)).mean())


def mask_decision(net: nn.Module) -> str | None:
    """The path of the network's mask decision; None without one."""
    return MASK if MASK in decisions(net) else None


def mask_shape(net: nn.Module, decision: str, height: int, width: int) -> tuple[int, int]:
    """Height and width of the mask for an image; nothing is computed."""
    shapes: list[torch.Size] = []
    shell = copy.deepcopy(net).to("meta")
    shell.get_submodule(decision).register_forward_hook(
        lambda module, inputs, own: shapes.append(own.shape)
    )
    with torch.no_grad():
        shell(torch.empty(1, 3, height, width, device="meta"))
    _, _, h, w = shapes[0]
    return h, w


class ForcedChoice(nn.Module):
    """A network under a choice that comes as a second argument."""

    def __init__(self, net: nn.Module, decision: str) -> None:
        super().__init__()
        self.net = net
        net.get_submodule(decision).register_forward_hook(self._decide)

    def _decide(self, module: nn.Module, inputs: Any, own: Tensor) -> Tensor:
        self.own = own
        return self.choice.to(own.dtype)

    def forward(self, image: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the image and the decision's own choice, which nothing may optimize away."""
        self.choice = choice
        return self.net(image), self.own


def force_choice(path: Path, decision: str, target: Path) -> None:
    """Write a copy of an ONNX file in which the input `FORCED_CHOICE` [N, 1, h, w] float32 takes
    the place of the value `decision`; what made the value lives on as the output `OWN_CHOICE`.

    Raises:
        DeblurExportError: the graph has no such value.
    """
    model = copied(ModelFile(path).proto)
    graph = model.graph
    places = [i for i, node in enumerate(graph.node) if decision in node.output]
    if not places:
        raise DeblurExportError(f"{path}: no value '{decision}' in its graph to force")
    (place,) = places
    outputs = graph.node[place].output
    outputs[list(outputs).index(decision)] = OWN_CHOICE
    forced = onnx.helper.make_node("CastLike", [FORCED_CHOICE, OWN_CHOICE], [decision])
    graph.node.insert(place + 1, forced)
    sizes = ("mask_batch", 1, "mask_height", "mask_width")
    graph.input.append(
        onnx.helper.make_tensor_value_info(FORCED_CHOICE, onnx.TensorProto.FLOAT, sizes)
    )
    graph.output.append(onnx.ValueInfoProto(name=OWN_CHOICE))
    target.write_bytes(model.SerializeToString())
