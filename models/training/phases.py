"""Training phases. Every network is trained as a whole, except AIBNet: one sub-decoder per phase.

The paper freezes an encoder that was trained before. Without one (`encoder` is True), the encoder
is trained with the first sub-decoder and is frozen afterwards. A new sub-decoder is initialised so
that it returns the features and the image of the previous one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from deblur_export.models.aibnet import AIBNet, SubDecoder, TrainingOutput
from deblur_export.models.blocks.naf import GlobalAveragePool
from deblur_export.models.dhnet import DHNet
from deblur_export.models.training.nafnet_weights import initialise_from_previous
from deblur_export.models.ufpnet import UFPNet


def prepare(net: nn.Module, fresh: bool) -> None:
    """Prepare a network for training, in place.

    It pools over the whole crop, since local pooling (TLC) is for inference. If it is `fresh`, its
    last convolutions are zero-initialised, so that its output is its input.
    """
    for name, module in net.named_modules():
        if isinstance(module, GlobalAveragePool):
            module.window = None
        last = name.rpartition(".")[2] == "ending" or "ConvsOut." in name
        if fresh and last and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(cast(Tensor, module.bias))


def count(net: nn.Module) -> int:
    """Number of phases of a run."""
    return len(net.sub_decoders) if isinstance(net, AIBNet) else 1


def begin(net: nn.Module, phase: int) -> None:
    """Initialise the part of the network that is trained first in this phase."""
    if isinstance(net, AIBNet) and phase:
        previous, new = net.sub_decoders[phase - 1], net.sub_decoders[phase]
        initialise_from_previous(cast(SubDecoder, new), cast(SubDecoder, previous))


def enter(net: nn.Module, phase: int, encoder: bool) -> None:
    """Set training mode, and which parameters require a gradient in this phase.

    `encoder` says whether AIBNet's encoder is trained in phase 0.
    """
    if isinstance(net, AIBNet):
        net.train_only(phase)
        net.encoder.requires_grad_(encoder and phase == 0)
    if isinstance(net, AIBNet | UFPNet):
        encoder_of = net.encoder if isinstance(net, AIBNet) else net
        encoder_of.kernel_extra.requires_grad_(False)
        encoder_of.flow.requires_grad_(False)
    net.train()


def run(net: nn.Module, image: Tensor) -> Any:
    """Run the network on an image [N, 3, H, W] in 0..1 in training mode, with the gradients of the
    current phase."""
    if isinstance(net, AIBNet) and net.encoder.intro.weight.requires_grad:
        *skips, bottom = net.encoder(image)
        decoder = net.sub_decoders[0]
        features = decoder(bottom, skips[::-1])
        restored = decoder.get_submodule("ending")(features[-1]) + image
        return TrainingOutput(restored, (restored,))
    return net(image)


@contextlib.contextmanager
def presented(net: nn.Module, phase: int) -> Iterator[nn.Module]:
    """The network as it is in this phase: AIBNet without the sub-decoders of later phases, which
    is a complete AIBNet with fewer of them."""
    if not isinstance(net, AIBNet):
        yield net
        return
    decoders = net.sub_decoders
    net.sub_decoders = decoders[: phase + 1]
    try:
        yield net
    finally:
        net.sub_decoders = decoders


def note(net: nn.Module) -> str:
    """A note to the user about parameters that are not trained here, or ""."""
    if isinstance(net, AIBNet | UFPNet) or (isinstance(net, DHNet) and net.prior is not None):
        return "the kernel prior is not trained: it keeps its initial values (--init-from)"
    return ""
