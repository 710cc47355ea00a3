"""What trains when. Every network trains as a whole but AIBNet, one sub-decoder after the other.

The paper freezes an encoder that was trained beforehand. Without one (`encoder` True) it trains
together with the first sub-decoder and is frozen after that. A new sub-decoder starts where the one
before ended: its features and its image are those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from deblur_export.models.aibnet import AIBNet, SubDecoder, TrainingOutput
from deblur_export.models.blocks.naf import GlobalAveragePool
from deblur_export.models.dhnet import DHNet
from deblur_export.models.training.inherit import continue_from
from deblur_export.models.ufpnet import UFPNet


def prepare(net: nn.Module, fresh: bool) -> None:
    """Make a network ready to train: pooling over the whole crop, since local pooling (TLC) is for
    inference; if it is `fresh`, its images start out as its input."""
    for name, module in net.named_modules():
        if isinstance(module, GlobalAveragePool):
            module.window = None
        last = name.rpartition(".")[2] == "ending" or "ConvsOut." in name
        if fresh and last and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(cast(Tensor, module.bias))


def count(net: nn.Module) -> int:
    """Phases of a run."""
    return len(net.sub_decoders) if isinstance(net, AIBNet) else 1


def begin(net: nn.Module, phase: int) -> None:
    """Give what comes in with this phase its first weights."""
    if isinstance(net, AIBNet) and phase:
        previous, new = net.sub_decoders[phase - 1], net.sub_decoders[phase]
        continue_from(cast(SubDecoder, new), cast(SubDecoder, previous))


def enter(net: nn.Module, phase: int, encoder: bool) -> None:
    """Set which parameters take a gradient in this phase, and training mode."""
    if isinstance(net, AIBNet):
        net.train_only(phase)
        net.encoder.requires_grad_(encoder and phase == 0)
    if isinstance(net, AIBNet | UFPNet):
        encoder_of = net.encoder if isinstance(net, AIBNet) else net
        encoder_of.kernel_extra.requires_grad_(False)
        encoder_of.flow.requires_grad_(False)
    net.train()


def run(net: nn.Module, image: Tensor) -> Any:
    """The network's output in training mode, with the gradients of the current phase."""
    if isinstance(net, AIBNet) and net.encoder.intro.weight.requires_grad:
        *skips, bottom = net.encoder(image)
        decoder = net.sub_decoders[0]
        features = decoder(bottom, skips[::-1])
        restored = decoder.get_submodule("ending")(features[-1]) + image
        return TrainingOutput(restored, (restored,))
    return net(image)


@contextlib.contextmanager
def presented(net: nn.Module, phase: int) -> Iterator[nn.Module]:
    """The network as it stands in this phase: AIBNet without the sub-decoders yet to come, which
    is a whole AIBNet with fewer of them."""
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
    """What a person should know about what is not trained here, or ""."""
    if isinstance(net, AIBNet | UFPNet) or (isinstance(net, DHNet) and net.prior is not None):
        return "the kernel prior is not trained here: it keeps its first values (--init-from)"
    return ""
