"""Parameters and multiply-adds of a network, with the counting rule stated."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config
from torch.utils.flop_counter import FlopCounterMode

from deblur_export.models.blocks.masked import UnfoldedMaskedConv
from deblur_export.models.blocks.naf import GlobalAveragePool
from deblur_export.plugins.ops import pruned_conv

PRUNABLE = pruned_conv.SPEC.torch_op.overloadpacket


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one image.

    `pure` counts the products of convolutions and matrix products. `with_bias` adds one for every
    output value of an `nn.Conv2d` with a bias, every value an average pooling reads and every
    value a pixel shuffle moves, which is the rule of the ptflops tool that several papers quote.
    `prunable` is the part of `pure` that a mask can save.
    """

    pure: int
    with_bias: int
    prunable: int = 0


def count_parameters(net: nn.Module) -> int:
    """Learnable values, buffers excluded."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_macs(net: nn.Module, height: int, width: int) -> Macs:
    """Multiply-adds of one 3 x height x width image in eval mode, padding included."""
    return count_macs_of(net, (torch.empty(1, 3, height, width, device="meta"),))


def m2aenet_macs_at(net: nn.Module, height: int, width: int, kept: float) -> int:
    """Pure multiply-adds when the mask keeps this share (0..1) of the pixels.

    Pruning saves the first 1x1 and depth-wise 3x3 of every motion-aware block in proportion to
    the sharp pixels. The 1x1 results that blurred pixels need from sharp neighbours are not added.
    """
    macs = count_macs(net, height, width)
    return round(macs.pure - (1 - kept) * macs.prunable)


def count_macs_of(net: nn.Module, inputs: tuple[Tensor, ...]) -> Macs:
    """Multiply-adds of one call in eval mode.

    Custom ops count as their dense form, as if every pixel of a mask were set. Runs on the meta
    device: nothing is computed.
    """
    net = copy.deepcopy(net).to("meta").eval()
    extra = unfolded = 0

    def count_extra(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal extra, unfolded
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            extra += output.numel()
        elif isinstance(module, GlobalAveragePool | nn.PixelShuffle):
            extra += inputs[0].numel()
        elif isinstance(module, UnfoldedMaskedConv):
            unfolded += output[:, 0].numel() * module.weight.numel()

    for module in net.modules():
        module.register_forward_hook(count_extra)
    counter = FlopCounterMode(display=False)
    every_pixel = fx_config.patch(meta_nonzero_assume_all_nonzero=True)  # type: ignore[attr-defined]
    with counter, every_pixel, torch.no_grad():
        net(*(tensor.to("meta") for tensor in inputs))
    pure = counter.get_total_flops() // 2
    prunable = counter.get_flop_counts()["Global"].get(PRUNABLE, 0) // 2 + unfolded
    return Macs(pure=pure, with_bias=pure + extra, prunable=prunable)
