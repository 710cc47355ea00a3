"""Reproducible random weights that exercise every branch of a network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deblur_export.models.spec import ModelSpec


def randomize(net: nn.Module, spec: ModelSpec, seed: int) -> None:
    """Fill every parameter of a network with reproducible random values, in place.

    No parameter is zero, one or negligible. Matrices and convolution kernels preserve the variance
    of their input; weights of norms, gates and residual scales are well away from 0 and 1. The last
    convolution is small, so that the output stays near the range of an image and 8-bit comparisons
    are meaningful. Batch statistics differ from their defaults; other buffers keep them.

    Args:
        net: the network.
        spec: its `after_random` makes the adjustments that a network needs besides.
        seed: all values follow from it.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size, std: float) -> Tensor:
        return std * torch.randn(shape, generator=generator)

    def away_from_zero(shape: torch.Size, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    with torch.no_grad():
        for name, parameter in net.named_parameters():
            leaf = name.rsplit(".", 1)[-1]
            shape = parameter.shape
            if leaf == "weight" and parameter.dim() > 1:
                value = normal(shape, 1 / math.sqrt(shape[1:].numel()))
            elif leaf == "weight":
                value = away_from_zero(shape, 0.6, 1.4)
            elif leaf == "bias":
                value = normal(shape, 0.1)
            else:  # residual scales and gates
                value = away_from_zero(shape, 0.2, 0.5)
            parameter.copy_(value)
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(normal(buffer.shape, 0.1))
            elif name.endswith("running_var"):
                buffer.copy_(away_from_zero(buffer.shape, 0.5, 1.5))
        last = getattr(net, "ending", None)
        if isinstance(last, nn.Conv2d):
            last.weight.mul_(0.03)
    if spec.after_random is not None:
        net.eval()
        spec.after_random(net)


def perturb(net: nn.Module, seed: int) -> None:
    """Move the zeros and ones of a network's own initial values away, in place and reproducibly.

    Residual scales of 0 hide branches, norms of 1 and 0 hide their affine part. All other values
    keep the size that the network's author chose, so that nothing overflows.

    Args:
        net: a network as it was built.
        seed: all changes follow from it.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.is_floating_point():
                continue
            fan_in = max(1, parameter.shape[1:].numel())
            width = 0.3 / math.sqrt(fan_in)
            noise = width * torch.randn(parameter.shape, generator=generator)
            noise = noise.where(noise.abs() > width / 100, width)
            plain = (parameter == 0) | (parameter == 1)
            parameter.add_(torch.where(plain, noise, noise / 10))
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.mul_(0.7 + 0.6 * torch.rand(buffer.shape, generator=generator))
