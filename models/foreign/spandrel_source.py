"""Networks of the architectures that the package spandrel knows, recognised by their weights.

The file is read by the reader of this package, which runs no code; spandrel only names the
architecture and builds it. Its descriptors are not called, since that pads and clips.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from deblur_export.engine_record import FixedShape
from deblur_export.errors import DeblurExportError
from deblur_export.manifest_blocks import Fact
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.checkpoint.files import Checkpoint
from deblur_export.models.checkpoint.fit import Wanted, fit
from deblur_export.models.checkpoint.recognise import unknown
from deblur_export.models.checkpoint.sets import WeightSet, whole_sets
from deblur_export.models.checkpoint.tensors import DTYPES
from deblur_export.models.foreign import checked, finished
from deblur_export.models.foreign.absent import stand_in_for, stood_in
from deblur_export.models.foreign.adapter import UNIT
from deblur_export.models.foreign.examine import Examined, Given, described, examine
from deblur_export.models.foreign.locate import Located
from deblur_export.models.foreign.user_code import user_code

Progress = Callable[[str], None]
OLDEST, BEYOND = (0, 4, 2), (0, 5)
INSTALL = 'pip install --no-deps "spandrel>=0.4.2,<0.5" einops'
# Modules of torchvision that spandrel imports, and the architectures that need them.
OF_TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
NEED_TORCHVISION = ("LaMa", "RestoreFormer")
PROFILED = ("total_ops", "total_params")  # that thop adds to every module
NOISE = "the strength of the noise is an input of this network: spandrel sets it to 15/255"


class Called(nn.Module):
    """A network as spandrel calls it: with the maps that it adds to the image, and one output."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, image: Tensor) -> Tensor:
        """[N, C, H, W] in 0..1 to [N, C, scale H, scale W]."""
        return self.call(self.model, image.clone())  # RCAN writes into its input


@dataclass(frozen=True)
class Spandrel:
    """The installed package: its architectures in the order in which they are tried, and why
    torchvision cannot be imported ("" if it can)."""

    version: str
    architectures: tuple[Any, ...]
    torchvision: str


def load_spandrel(
    checkpoint: Checkpoint,
    weights: str,
    given: Given | None = None,
    ema: bool | None = None,
    shape: FixedShape | None = None,
    progress: Progress = lambda step: None,
) -> LoadedModel:
    """Load the network of a checkpoint that spandrel recognises.

    Args:
        checkpoint: the file.
        weights: its name as the user gave it.
        given, shape, progress: as of `load_foreign`.
        ema: True takes the weights averaged over the training, False the others; None takes the
            averaged ones of a file that has both, as spandrel does.

    Raises:
        DeblurExportError: spandrel is not installed or does not recognise the weights, or the
            network is none from an image to an image.
    """
    if not checkpoint.entries or importlib.util.find_spec("spandrel") is None:
        raise unknown(checkpoint, f"; spandrel, which knows 42 more, is not installed ({INSTALL})")
    progress("asking spandrel")
    package = installed()
    found = recognised(checkpoint, package)
    if found is None:
        count = len(package.architectures)
        raise unknown(
            checkpoint, f" nor any of the {count} architectures of spandrel {package.version}"
        )
    architecture, state = found
    title = str(architecture.name)
    wanted = Wanted(title, state, {name: name for name in state})
    fitted = fit(checkpoint, wanted, ema)
    if ema is None and fitted.ema is False:  # of two sets, spandrel takes the averaged one
        fitted = fit(checkpoint, wanted, True)
    descriptor = _built(checkpoint, architecture, fitted.state)
    _check_kind(checkpoint, descriptor, package)
    _settle(descriptor.model)
    net = Called(checked(descriptor.model, title), descriptor._call_fn)
    net.eval().requires_grad_(False)
    notes = fitted.notes
    if descriptor.architecture.id == "DRUNet" or "FDnCNN" in descriptor.tags:
        notes = (*notes, NOISE)
    identity = str(architecture.id)
    return finished(
        net,
        _examined(net, descriptor, given or Given(), shape, progress),
        Located(identity, identity, net, None),
        origin="spandrel",
        weights=weights,
        key=fitted.key,
        ema=fitted.ema,
        notes=notes,
    )


def installed() -> Spandrel:
    """Import spandrel, and its package of further architectures if that is installed. Where
    torchvision does not import, as beside another build of torch, there is a stand-in for the two
    names that spandrel takes from it.

    Raises:
        DeblurExportError: it has another version or does not import.
    """
    found = version("spandrel")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if not OLDEST <= numbers < BEYOND:
        raise DeblurExportError(f"spandrel {found} is installed, which is not tried: {INSTALL}")
    with user_code("importing spandrel failed"), _torchvision() as absent:
        spandrel = importlib.import_module("spandrel")
        registry = spandrel.MAIN_REGISTRY.copy()
        if importlib.util.find_spec("spandrel_extra_arches") is not None:
            extra = importlib.import_module("spandrel_extra_arches")
            registry.add(*extra.EXTRA_REGISTRY, ignore_duplicates=True)
    order = registry.architectures("detection")
    return Spandrel(found, tuple(support.architecture for support in order), absent)


@contextmanager
def _torchvision() -> Iterator[str]:
    """Let torchvision be imported, as a stand-in if it cannot be; gives the reason."""
    reason = "it is not installed" if "torchvision" in stood_in() else ""
    try:
        importlib.import_module(OF_TORCHVISION[-1])
    except Exception as error:  # a build for another torch raises RuntimeError
        reason = " ".join(str(error).split()) or type(error).__name__
        with stand_in_for(OF_TORCHVISION):
            yield reason
    else:
        yield reason


def recognised(checkpoint: Checkpoint, package: Spandrel) -> tuple[Any, dict[str, Tensor]] | None:
    """The architecture of a checkpoint, and its state dict on the meta device; None if there is
    none."""
    for weights in whole_sets(checkpoint):
        state = _shapes(weights)
        for architecture in package.architectures:
            if _detects(architecture, state):
                return architecture, state
    return None


def _detects(architecture: Any, state: dict[str, Tensor]) -> bool:
    try:
        return bool(architecture.detect(state))
    except Exception:  # keys or shapes that it does not expect
        return False


def _shapes(weights: WeightSet) -> dict[str, Tensor]:
    state = {}
    for name, (entry, *_) in weights.sources.items():
        dtype = DTYPES.get(entry.tensor.dtype, torch.float32)
        if name.rpartition(".")[2] not in PROFILED:
            state[name] = torch.empty(
                () if entry.tensor.unfit else entry.tensor.shape,
                dtype=torch.float32 if dtype.is_floating_point else dtype,
                device="meta",
            )
    return state


def _built(checkpoint: Checkpoint, architecture: Any, state: Mapping[str, Tensor]) -> Any:
    what = f"{checkpoint.source}: spandrel takes it for {architecture.name} and cannot load it"
    with user_code(what), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constructors, about functions of torch
        return architecture.load(dict(state))


def _settle(model: nn.Module) -> None:
    """Let layers that merge their branches on every call, as SPAN's do, merge them once."""
    layers: Iterator[Any] = model.modules()
    for layer in layers:
        if callable(getattr(layer, "update_params", None)):
            layer.update_params()
            layer.update_params = _settled
            layer.weight_concat = layer.bias_concat = None


def _settled() -> None:
    """In place of a merge that is done."""


def _check_kind(checkpoint: Checkpoint, descriptor: Any, package: Spandrel) -> None:
    """Check that it maps an image to an image of as many channels.

    Raises:
        DeblurExportError: it does not, or needs torchvision, which does not import.
    """
    name, why = descriptor.architecture.name, ""
    ins, outs = descriptor.input_channels, descriptor.output_channels
    if descriptor.purpose == "Inpainting":
        why = "which needs a mask besides the image"
    elif ins != outs:
        why = f"which makes images of {outs} channels of images of {ins}"
    elif descriptor.architecture.id in NEED_TORCHVISION and package.torchvision:
        why = f"which needs torchvision, and that does not import ({package.torchvision})"
    if why:
        raise DeblurExportError(f"{checkpoint.source}: a checkpoint of {name}, {why}")


def _examined(
    net: nn.Module, descriptor: Any, given: Given, shape: FixedShape | None, progress: Progress
) -> Examined:
    """What the user and spandrel say and a probe finds. spandrel's size requirements are what the
    network accepts, padding inside if need be; its graph may need more, which the probe tells."""
    if given.complete:
        return described(given)
    needs = descriptor.size_requirements
    told = Given(
        channels=descriptor.input_channels,
        scale=descriptor.scale,
        square=True if needs.square else None,
        output=0,
        range=UNIT,
        output_range=UNIT,
        colour="RGB",
    )
    users = {f.name: getattr(given, f.name) for f in fields(given)}
    told = replace(told, **{name: value for name, value in users.items() if value is not None})
    examined = examine(net, told, shape, progress)
    images, facts = examined.interface.images, dict(examined.facts)
    least = {
        "multiple": lcm(images.multiple, needs.multiple_of),
        "minimum": max(images.minimum, needs.minimum),
    }
    for name, value in least.items():
        if users[name] is None and value != getattr(images, name):
            images = replace(images, **{name: value})
            facts[name] = Fact(value, "given")
    return replace(examined, interface=replace(examined.interface, images=images), facts=facts)
