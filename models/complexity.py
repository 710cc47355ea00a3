"""Count the parameters and multiply-adds of a network by a stated rule."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from deblur_export.models.blocks.masked import UnfoldedMaskedConv
from deblur_export.models.blocks.naf import GlobalAveragePool
from deblur_export.plugins.ops import pruned_conv

PRUNABLE = pruned_conv.SPEC.torch_op.overloadpacket


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one image.

    Attributes:
        pure: the products of convolutions, matrix products and the selective scan.
        with_bias: `pure`, plus one for every output value of an `nn.Conv2d` with a bias, every
            input value of an average pooling and every value that a pixel shuffle moves. This is
            the rule of the ptflops tool, which several papers quote.
        prunable: the part of `pure` that a mask can save.
        convolutions: the part of `pure` in convolutions outside custom ops.
    """

    pure: int
    with_bias: int
    prunable: int = 0
    convolutions: int = 0


def count_parameters(net: nn.Module, without: Sequence[str] = ()) -> int:
    """Count the learnable values, without buffers; `without` as in `count_macs`."""
    return sum(
        parameter.numel()
        for name, parameter in net.named_parameters()
        if not _left_out(f".{name}.", without)
    )


def count_macs(net: nn.Module, height: int, width: int, without: Sequence[str] = ()) -> Macs:
    """Count the multiply-adds of one image [1, 3, height, width] in eval mode, including padding.

    Modules whose dotted path contains one of `without` are left out.
    """
    return count_macs_of(net, (torch.empty(1, 3, height, width, device="meta"),), without)


def _left_out(path: str, without: Sequence[str]) -> bool:
    return any(f".{part}." in path for part in without)


def m2aenet_macs_at(net: nn.Module, height: int, width: int, blurred: float) -> int:
    """Count the pure multiply-adds if the mask selects a fraction `blurred` (0..1) of the pixels.

    Pruning saves the first 1x1 and depth-wise 3x3 convolution of every motion-aware block in
    proportion to the sharp pixels. The 1x1 results that blurred pixels need from sharp neighbours
    are not added.
    """
    macs = count_macs(net, height, width)
    return round(macs.pure - (1 - blurred) * macs.prunable)


def count_macs_of(net: nn.Module, inputs: tuple[Tensor, ...], without: Sequence[str] = ()) -> Macs:
    """Count the multiply-adds of one call with `inputs` in eval mode.

    Custom ops are counted in their dense form, as if every pixel of a mask were set. The network
    runs on the meta device, so nothing is computed; if its code cannot, because it reads values or
    makes tensors outside of torch, it runs on the CPU on zeros.
    """
    try:
        return _count(copy.deepcopy(net).to("meta"), inputs, without, "meta")
    except Exception:  # the user's code: anything can be raised; it says so again on the CPU
        zeros = tuple(torch.zeros_like(tensor, device="cpu") for tensor in inputs)
        return _count(copy.deepcopy(net), zeros, without, "cpu")


def _count(net: nn.Module, inputs: tuple[Tensor, ...], without: Sequence[str], device: str) -> Macs:
    net.eval()
    extra = unfolded = 0

    def count_extra(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal extra, unfolded
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            extra += sum(tensor.numel() for tensor in tree_iter(output))
        elif isinstance(module, GlobalAveragePool | nn.PixelShuffle):
            extra += inputs[0].numel()
        elif isinstance(module, UnfoldedMaskedConv):
            unfolded += output[:, 0].numel() * module.weight.numel()

    for name, module in net.named_modules():
        if not _left_out(f".{name}.", without):
            module.register_forward_hook(count_extra)
    counter = FlopCounterMode(display=False)
    every_pixel = fx_config.patch(meta_nonzero_assume_all_nonzero=True)  # type: ignore[attr-defined]
    with counter, every_pixel, torch.no_grad(), torch.device(device):
        net(*(tensor.to(device) for tensor in inputs))
    flops = _flops_by_op(counter, without)
    pure = sum(flops.values()) // 2
    convolutions = flops[torch.ops.aten.convolution] // 2
    prunable = flops[PRUNABLE] // 2 + unfolded
    return Macs(pure, pure + extra, prunable, convolutions)


def _flops_by_op(counter: FlopCounterMode, without: Sequence[str]) -> Counter[Any]:
    """Totals by op, minus those of the modules that are left out."""
    counts = counter.get_flop_counts()
    total: Counter[Any] = Counter(counts.get("Global", {}))
    dropped = {path for path in counts if _left_out(f".{path}.", without)}
    for path in dropped:
        if not dropped.intersection(_ancestors(path)):  # theirs include those of this module
            total.subtract(counts[path])
    return total


def _ancestors(path: str) -> list[str]:
    """The dotted paths above a path. Not all are in the counts: a module list is never called."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
