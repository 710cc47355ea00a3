"""Initialise a network with the weights of a trained NAFNet, so that it computes the same images
(as in Net2Net, Chen et al. 2015, arXiv:1511.05641).

ALGNet, DHNet, AIBNet and UFPNet extend NAFNet's blocks, so each of them contains a NAFNet. The
parts that they add are initialised so that they have no effect but still receive a gradient: one
factor before or after them is zero.

- ALGNet: the factor of the scan and the weights for the smaller images are zero; the 1x1
  convolutions after the skip connections add their two inputs.
- DHNet: the first product of a Volterra filter is NAFNet's gate; its linear term, one factor of the
  other products and the experts' 1x1 convolutions are zero.
- AIBNet: kernel attention (as in UFPNet) and both channel attentions return zero, the depth-wise
  convolutions of the second halves are the identity, and later sub-decoders return the features of
  the previous one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.models.aibnet import AIBNet, SubDecoder
from deblur_export.models.algnet import ALGNet
from deblur_export.models.blocks.aibnet_hfs import HFSBlock
from deblur_export.models.blocks.aibnet_sfem import SFDHBlock
from deblur_export.models.blocks.algnet_block import ALGBlock, FeatureMerge
from deblur_export.models.blocks.ddre import Expert
from deblur_export.models.blocks.naf import NAFBlock
from deblur_export.models.blocks.ufp_encoder import KernelBlock
from deblur_export.models.blocks.volterra import VBlock, VolterraFilter
from deblur_export.models.dhnet import DHNet, DHStage
from deblur_export.models.nafnet import NAFNet
from deblur_export.models.ufpnet import UFPNet


class NAFNetLayers(NamedTuple):
    """The layers that the networks have in common: `single` layers and `stages` of blocks."""

    single: list[nn.Module]
    stages: list[list[nn.Module]]


@torch.no_grad()
def copy_nafnet_weights(net: nn.Module, source: nn.Module) -> None:
    """Copy the weights of the NAFNet `source` into `net`, so that it computes the same images.

    This is exact for images whose sides are multiples of 16 and without local pooling. If a stage
    has fewer blocks than that of the source, it gets the last of them, and the images differ by the
    effect of the others. If it has more, the first ones keep their own weights, but have no effect
    at first.

    Args:
        net: an ALGNet, DHNet, AIBNet or UFPNet; changed in place.
        source: a NAFNet of the same width.

    Raises:
        DeblurExportError: the network does not contain a NAFNet, or one of another width.
    """
    own, given = nafnet_layers(net), nafnet_layers(source)
    if own is None or given is None or isinstance(net, NAFNet):
        raise DeblurExportError(
            f"{type(net).__name__} does not contain a NAFNet: ALGNet, DHNet, AIBNet, UFPNet do"
        )
    widths = [cast(nn.Conv2d, part.single[0]).out_channels for part in (own, given)]
    if widths[0] != widths[1]:
        raise DeblurExportError(
            f"the NAFNet is {widths[1]} channels wide, this {type(net).__name__} {widths[0]}"
        )
    for layer, other in zip(own.single, given.single, strict=True):
        copy(layer, other)
    for blocks, others in zip(own.stages, given.stages, strict=True):
        for block, naf in zip(reversed(blocks), reversed(others), strict=False):
            copy_block(block, cast(NAFBlock, naf))
        for block in blocks[: max(len(blocks) - len(others), 0)]:
            zero_residual_scales(block)
    for module in net.modules():
        zero_additions(module)
    if isinstance(net, ALGNet):
        for conv in net.Convs:
            set_sum_of_halves(cast(nn.Conv2d, conv), 1.0, 1.0)
    if isinstance(net, AIBNet):
        decoders = cast("list[SubDecoder]", list(net.sub_decoders))
        for decoder, previous in zip(decoders[1:], decoders, strict=False):
            initialise_from_previous(decoder, previous)


def nafnet_layers(net: nn.Module) -> NAFNetLayers | None:
    """The layers of the NAFNet in a network, in NAFNet's order; None if it contains none."""
    if not isinstance(net, NAFNet | ALGNet | DHNet | AIBNet | UFPNet):
        return None
    start: nn.Module = net.encoder if isinstance(net, AIBNet) else net
    end: nn.Module = net.sub_decoders[0] if isinstance(net, AIBNet) else net
    middle = "middle" if isinstance(net, DHNet) else "middle_blks"
    decoders = "scales" if isinstance(net, AIBNet) else "decoders"
    stages = [*_children(start, "encoders"), start.get_submodule(middle), *_children(end, decoders)]
    ups = [up for stage in _children(end, "ups") for up in stage.children()]
    single = [
        start.get_submodule("intro"),
        *_children(start, "downs"),
        *(up for up in ups if isinstance(up, nn.Conv2d)),
        end.get_submodule("ending"),
    ]
    return NAFNetLayers(single, [_blocks(stage) for stage in stages])


def _blocks(stage: nn.Module) -> list[nn.Module]:
    """The blocks of a stage that have a counterpart in NAFNet."""
    sequence = stage.blocks if isinstance(stage, DHStage) else stage
    return [block for block in sequence.children() if isinstance(block, NAFBlock | ALGBlock)]


def _children(net: nn.Module, name: str) -> list[nn.Module]:
    return list(net.get_submodule(name).children())


@singledispatch
def copy_block(block: nn.Module, naf: NAFBlock) -> None:
    """Copy the weights of a NAF block into the block of another network that extends it."""
    raise TypeError(type(block).__name__)


@copy_block.register
def _(block: NAFBlock, naf: NAFBlock) -> None:
    """For KernelBlock and SFDHBlock too, whose additional parts `zero_additions` initialises."""
    for name in ("norm1", "conv1", "conv2", "sca", "conv3", "norm2", "conv4", "conv5"):
        copy(block.get_submodule(name), naf.get_submodule(name))
    copy_scales(block, naf, {"beta": "beta", "gamma": "gamma"})


@copy_block.register
def _(block: VBlock, naf: NAFBlock) -> None:
    """The gate multiplies channels c and C + c, a Volterra filter channels 2c and 2c + 1."""
    copy_block.dispatch(NAFBlock)(block, naf)
    if not isinstance(block.volterra, VolterraFilter):
        return
    for name in ("conv1", "conv2"):
        for tensor in block.get_submodule(name).parameters():
            tensor.copy_(torch.stack(tensor.chunk(2), dim=1).flatten(0, 1))
    set_to_channel(cast(nn.Conv2d, block.volterra.wa[0]), 0)
    set_to_channel(cast(nn.Conv2d, block.volterra.wb[0]), 1)


@copy_block.register
def _(block: ALGBlock, naf: NAFBlock) -> None:
    """Its local layer is NAFNet's channel attention; its `beta` is NAFNet's `gamma`."""
    for name in ("norm1", "conv1", "conv2", "norm2", "conv4", "conv5"):
        copy(block.get_submodule(name), naf.get_submodule(name))
    copy(block.l_layer.conv1, naf.sca[1])
    copy(block.l_layer.conv2, naf.conv3)
    copy_scales(block, naf, {"lamb_l": "beta", "beta": "gamma"})


def zero_residual_scales(block: nn.Module) -> None:
    """Make a block, after `zero_additions`, return its input."""
    names = ("lamb_l", "beta") if isinstance(block, ALGBlock) else ("beta", "gamma")
    zero(block.get_parameter(name) for name in names)


@singledispatch
def zero_additions(module: nn.Module) -> None:
    """Initialise what a module adds to NAFNet so that it has no effect but receives a gradient.

    Most modules add nothing and stay unchanged.
    """


@zero_additions.register
def _(module: ALGBlock) -> None:
    zero([cast(Tensor, module.lamb_g)])


@zero_additions.register
def _(module: FeatureMerge) -> None:
    set_sum_of_halves(module.merge, 1.0, 0.0)


@zero_additions.register
def _(module: VolterraFilter) -> None:
    zero(module.w1.parameters())
    for factor in module.wb[1:]:
        zero(factor.parameters())


@zero_additions.register
def _(module: Expert) -> None:
    zero(module.pointwise.parameters())


@zero_additions.register
def _(module: KernelBlock) -> None:
    zero(module.kernel_atttion.conv_1.parameters())


@zero_additions.register
def _(module: SFDHBlock) -> None:
    zero(module.sfem.out.parameters())
    set_to_channel(module.conv4_dw, 0)


@zero_additions.register
def _(module: HFSBlock) -> None:
    zero(tensor[2 * module.channels :] for tensor in module.dw.parameters())


@torch.no_grad()
def initialise_from_previous(decoder: SubDecoder, previous: SubDecoder) -> None:
    """Make a sub-decoder of AIBNet return the features and the image of the previous one."""
    for up in decoder.ups:
        zero(up.parameters())
    for module in decoder.modules():
        zero_additions(module)
        if isinstance(module, SFDHBlock):
            zero_residual_scales(module)
    copy(decoder.ending, previous.ending)


def copy(layer: nn.Module, other: nn.Module) -> None:
    layer.load_state_dict(other.state_dict())


def copy_scales(block: nn.Module, naf: NAFBlock, names: dict[str, str]) -> None:
    """Copy the scales of residual branches, whose shapes differ; `names` maps the block's names to
    NAFNet's."""
    for own, other in names.items():
        scale = block.get_parameter(own)
        scale.copy_(naf.get_parameter(other).view_as(scale))


def zero(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        tensor.zero_()


def set_to_channel(conv: nn.Conv2d, channel: int) -> None:
    """Make each output channel of a convolution a copy of input channel `channel` of its group."""
    zero(conv.parameters())
    conv.weight[:, channel, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1


def set_sum_of_halves(conv: nn.Conv2d, first: float, second: float) -> None:
    """Make a 1x1 convolution compute first * (first half of channels) + second * (second half)."""
    zero(conv.parameters())
    identity = torch.eye(conv.out_channels, device=conv.weight.device)
    conv.weight[:, :, 0, 0] = torch.cat([first * identity, second * identity], dim=1)
