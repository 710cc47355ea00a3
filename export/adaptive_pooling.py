"""Adaptive average pooling that follows the size of the image.

torch decomposes it for the sample's size: the exported program says what it should, and the ONNX
file pools windows of the sample at any size. While this mode is on, pooling along a side of free
length is written as what it is: nothing, a mean, or a product with a matrix of window means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode

POOLS = (
    torch._C._nn.adaptive_avg_pool2d,
    torch.nn.functional.adaptive_avg_pool2d,
)


class SizedPooling(TorchFunctionMode):
    """Replaces adaptive average pooling over sides of free length."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in POOLS:
            image, size = _arguments(*args, **kwargs)
            if any(isinstance(side, SymInt) for side in image.shape[-2:]):
                return pooled(image, size)
        return func(*args, **kwargs)


def pooled(image: Tensor, size: Sequence[int | SymInt | None]) -> Tensor:
    """[..., H, W] averaged over windows to [..., *size], where None keeps a side.

    Window i of k along a side of length L is from floor(i L / k) to ceil((i + 1) L / k), as in
    torch.nn.AdaptiveAvgPool2d.
    """
    for axis, wanted in zip((-2, -1), size, strict=True):
        length = image.shape[axis]
        if wanted is None or statically_known_true(length == wanted):
            continue
        if statically_known_true(wanted == 1):
            image = image.mean(axis, keepdim=True)
        else:
            means = _means(length, wanted, image)
            image = image @ means if axis == -1 else means.T @ image
    return image


def _arguments(input: Tensor, output_size: Any) -> tuple[Tensor, Sequence[Any]]:
    size = output_size if isinstance(output_size, Sequence) else (output_size, output_size)
    return input, size


def _means(length: Any, count: Any, like: Tensor) -> Tensor:
    """[length, count]: column i has the mean's weights of window i."""
    window = torch.arange(count, device=like.device)
    start = window * length // count
    end = ((window + 1) * length + count - 1) // count
    place = torch.arange(length, device=like.device)[:, None]
    inside = (place >= start) & (place < end)
    means: Tensor = inside.to(like.dtype) / (end - start).to(like.dtype)
    return means
