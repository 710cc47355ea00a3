"""First weights that compute what a trained NAFNet computes (as in Net2Net, Chen et al. 2015,
arXiv:1511.05641).

ALGNet, DHNet, AIBNet and UFPNet extend NAFNet's blocks, so each of them contains it. What they add
starts without effect, by a zero before or behind it, and takes a gradient all the same:

- ALGNet: the factor of the scan and the weights that read the smaller images are zero; the 1x1
  convolutions behind the skips add.
- DHNet: the first product of a Volterra filter is the gate; its linear term, one factor of the
  other products and the experts' 1x1 convolutions are zero.
- AIBNet: kernel attention (UFPNet's) and both channel attentions give zero, the depth-wise
  convolutions of the second halves pass on what they get, later sub-decoders the features of the
  one before.
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


class Skeleton(NamedTuple):
    """What the networks have in common: `single` layers one by one, `stages` of blocks."""

    single: list[nn.Module]
    stages: list[list[nn.Module]]


@torch.no_grad()
def inherit(net: nn.Module, donor: nn.Module) -> None:
    """Fill `net` with the weights of `donor`, a NAFNet, so that it computes the same images.

    Exact for images whose sides are multiples of 16 and without local pooling. A stage with fewer
    blocks than the donor's gets its last ones, and the images differ by what the others did; in a
    stage with more, the first ones keep their own weights, but start without effect.

    Raises:
        DeblurExportError: the network does not contain a NAFNet, or one of another width.
    """
    own, given = skeleton(net), skeleton(donor)
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
            take(block, cast(NAFBlock, naf))
        for block in blocks[: max(len(blocks) - len(others), 0)]:
            idle(block)
    for module in net.modules():
        silence(module)
    if isinstance(net, ALGNet):
        for conv in net.Convs:
            add_halves(cast(nn.Conv2d, conv), 1.0, 1.0)
    if isinstance(net, AIBNet):
        decoders = cast("list[SubDecoder]", list(net.sub_decoders))
        for decoder, previous in zip(decoders[1:], decoders, strict=False):
            continue_from(decoder, previous)


def skeleton(net: nn.Module) -> Skeleton | None:
    """The NAFNet in a network, in the order of NAFNet's layers; None if it holds none."""
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
    return Skeleton(single, [_blocks(stage) for stage in stages])


def _blocks(stage: nn.Module) -> list[nn.Module]:
    """The blocks of a stage that have a counterpart in NAFNet."""
    sequence = stage.blocks if isinstance(stage, DHStage) else stage
    return [block for block in sequence.children() if isinstance(block, NAFBlock | ALGBlock)]


def _children(net: nn.Module, name: str) -> list[nn.Module]:
    return list(net.get_submodule(name).children())


@singledispatch
def take(block: nn.Module, naf: NAFBlock) -> None:
    """Make a block of another network compute what a NAF block does."""
    raise TypeError(type(block).__name__)


@take.register
def _(block: NAFBlock, naf: NAFBlock) -> None:
    """KernelBlock and SFDHBlock too: `silence` sees to what they add."""
    for name in ("norm1", "conv1", "conv2", "sca", "conv3", "norm2", "conv4", "conv5"):
        copy(block.get_submodule(name), naf.get_submodule(name))
    copy_scales(block, naf, {"beta": "beta", "gamma": "gamma"})


@take.register
def _(block: VBlock, naf: NAFBlock) -> None:
    """The gate multiplies channels c and C + c, a Volterra filter 2c and 2c + 1."""
    take.dispatch(NAFBlock)(block, naf)
    if not isinstance(block.volterra, VolterraFilter):
        return
    for name in ("conv1", "conv2"):
        for tensor in block.get_submodule(name).parameters():
            tensor.copy_(torch.stack(tensor.chunk(2), dim=1).flatten(0, 1))
    centre(cast(nn.Conv2d, block.volterra.wa[0]), 0)
    centre(cast(nn.Conv2d, block.volterra.wb[0]), 1)


@take.register
def _(block: ALGBlock, naf: NAFBlock) -> None:
    """Its local layer is NAFNet's channel attention, `beta` is the scale of the second half."""
    for name in ("norm1", "conv1", "conv2", "norm2", "conv4", "conv5"):
        copy(block.get_submodule(name), naf.get_submodule(name))
    copy(block.l_layer.conv1, naf.sca[1])
    copy(block.l_layer.conv2, naf.conv3)
    copy_scales(block, naf, {"lamb_l": "beta", "beta": "gamma"})


def idle(block: nn.Module) -> None:
    """Let a block give back its input, once `silence` has been at it."""
    names = ("lamb_l", "beta") if isinstance(block, ALGBlock) else ("beta", "gamma")
    zero(block.get_parameter(name) for name in names)


@singledispatch
def silence(module: nn.Module) -> None:
    """Take the effect, not the gradient, from what a network adds to NAFNet: nothing, mostly."""


@silence.register
def _(module: ALGBlock) -> None:
    zero([cast(Tensor, module.lamb_g)])


@silence.register
def _(module: FeatureMerge) -> None:
    add_halves(module.merge, 1.0, 0.0)


@silence.register
def _(module: VolterraFilter) -> None:
    zero(module.w1.parameters())
    for factor in module.wb[1:]:
        zero(factor.parameters())


@silence.register
def _(module: Expert) -> None:
    zero(module.pointwise.parameters())


@silence.register
def _(module: KernelBlock) -> None:
    zero(module.kernel_atttion.conv_1.parameters())


@silence.register
def _(module: SFDHBlock) -> None:
    zero(module.sfem.out.parameters())
    centre(module.conv4_dw, 0)


@silence.register
def _(module: HFSBlock) -> None:
    zero(tensor[2 * module.channels :] for tensor in module.dw.parameters())


@torch.no_grad()
def continue_from(decoder: SubDecoder, previous: SubDecoder) -> None:
    """Make a sub-decoder of AIBNet give back the features and the image of the one before it."""
    for up in decoder.ups:
        zero(up.parameters())
    for module in decoder.modules():
        silence(module)
        if isinstance(module, SFDHBlock):
            idle(module)
    copy(decoder.ending, previous.ending)


def copy(layer: nn.Module, other: nn.Module) -> None:
    layer.load_state_dict(other.state_dict())


def copy_scales(block: nn.Module, naf: NAFBlock, names: dict[str, str]) -> None:
    """Scales of residuals, whose shapes differ; `names` maps the block's to NAFNet's."""
    for own, other in names.items():
        scale = block.get_parameter(own)
        scale.copy_(naf.get_parameter(other).view_as(scale))


def zero(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        tensor.zero_()


def centre(conv: nn.Conv2d, channel: int) -> None:
    """Each output is one channel of its group, as it is."""
    zero(conv.parameters())
    conv.weight[:, channel, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1


def add_halves(conv: nn.Conv2d, first: float, second: float) -> None:
    """A 1x1 convolution becomes first * (first half of its input) + second * (second half)."""
    zero(conv.parameters())
    identity = torch.eye(conv.out_channels, device=conv.weight.device)
    conv.weight[:, :, 0, 0] = torch.cat([first * identity, second * identity], dim=1)
