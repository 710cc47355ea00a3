"""What a network must be and must not do if one graph is to compute the same: in float32 on the CPU
and in eval mode; not random, without state between runs, not writing into its input, and finite."""

from __future__ import annotations

import copy
import itertools
import traceback
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from deblur_export.engine_record import FixedShape
from deblur_export.errors import DeblurExportError
from deblur_export.shown import shown

Calls = list[tuple[str, Tensor]]
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def check_module(net: object) -> nn.Module:
    """The module that was given, if it can be exported as it is.

    Raises:
        DeblurExportError: it is no module, has no weights, or is not in float32, on the CPU and in
            eval mode; with the first parameter or module that is not, and what to call.
    """
    if not isinstance(net, nn.Module):
        kind = type(net).__name__
        raise DeblurExportError(
            f"the network is a {shown(kind)}, not a torch.nn.Module; give a module, or a function "
            "that returns one"
        )
    tensors = dict(itertools.chain(net.named_parameters(), net.named_buffers()))
    if not tensors:
        raise DeblurExportError(
            "the network has no parameters and no buffers; give the module that holds its layers"
        )
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise DeblurExportError(
                f"{shown(name)} of the network is on the meta device, where it has no values; "
                "build the network on the CPU and load its weights"
            )
        if tensor.device.type != "cpu":
            raise DeblurExportError(
                f"{shown(name)} of the network is on {tensor.device}; call net.cpu() first"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DeblurExportError(
                f"{shown(name)} of the network is {kind}; call net.float() first, and choose the "
                "precision of the file with --precision"
            )
    training = next((name for name, module in net.named_modules() if module.training), None)
    if training is not None:
        raise DeblurExportError(
            f"{shown(training) or 'the network'} is in training mode; call net.eval() first"
        )
    return net


def notes_on_statistics(net: nn.Module) -> tuple[str, ...]:
    """A note on instance norms that use running statistics in eval mode, but those of the image in
    training mode, which some published code restores in on purpose (DeblurGAN-v2)."""
    norms = [
        name or type(module).__name__
        for name, module in net.named_modules()
        if isinstance(module, INSTANCE_NORMS) and module.running_mean is not None
    ]
    if not norms:
        return ()
    return (
        f"{len(norms)} instance norms, first {shown(norms[0])}, use running statistics, as always "
        "in eval mode; if the network's own code restores images in training mode, set their "
        "running_mean and running_var to None before the export",
    )


def check_behaviour(net: nn.Module, shape: FixedShape) -> None:
    """Run fresh copies of a network in eval mode on noise of this shape.

    Raises:
        DeblurExportError: with the module that does it and the way out.
    """
    generator = torch.Generator().manual_seed(0)
    image, other = (torch.rand(shape, generator=generator) for _ in range(2))
    given = image.clone()
    first = _run(copy.deepcopy(net), given)
    if not torch.equal(given, image):
        raise DeblurExportError(
            "the network writes into its input, so that a second run on the same tensor differs; "
            "let it compute a new tensor (x = x * s in place of x *= s)"
        )
    if not isinstance(first, Tensor):
        raise DeblurExportError(
            f"the network returns a {type(first).__name__}, not one tensor; wrap it in a module "
            "that returns the restored image"
        )
    if not bool(torch.isfinite(first).all()):
        name = next((n for n, t in _calls(net, image) if not torch.isfinite(t).all()), "")
        raise DeblurExportError(
            f"the network gives NaN or infinity for an image in 0..1{_first(name)}; check its "
            "weights"
        )
    work = copy.deepcopy(net)
    _run(work, other)
    if torch.equal(first, _run(work, image.clone())):
        return
    if not torch.equal(first, _run(copy.deepcopy(net), image.clone())):
        name = _first_difference(_calls(net, image), _calls(net, image))
        raise DeblurExportError(
            f"two runs on one image differ: the network is random{_first(name)}; switch its noise "
            "or dropout off in eval mode"
        )
    name = _first_difference(_calls(net, image), _calls(net, image, work))
    raise DeblurExportError(
        f"an image changes the result of the next one: the network keeps state{_first(name)}; "
        "compute it anew in each forward"
    )


def _run(net: nn.Module, image: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            result: Tensor = net(image)
    except Exception as error:  # the user's code: anything can be raised
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = shown(" ".join(str(error).split()) or type(error).__name__)
        raise DeblurExportError(
            f"the network fails on an image of {'x'.join(map(str, image.shape))}: {said} "
            f"({place.filename}:{place.lineno})"
        ) from error
    return result


def _calls(net: nn.Module, image: Tensor, used: nn.Module | None = None) -> Calls:
    """Names and outputs of the modules in the order in which they end; of a fresh copy, or of one
    that was used before."""
    work = used or copy.deepcopy(net)
    calls: Calls = []
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: (
                calls.append((name, out.detach().clone())) if isinstance(out, Tensor) else None
            )
        )
        for name, module in work.named_modules()
    ]
    try:
        _run(work, image.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _first_difference(one: Calls, two: Calls) -> str:
    """The module that first gives another output, the innermost if several end at once."""
    pairs: Iterator[tuple[tuple[str, Tensor], tuple[str, Tensor]]] = zip(one, two, strict=False)
    differing = (name for (name, a), (_, b) in pairs if a.shape != b.shape or not torch.equal(a, b))
    return next(itertools.chain(differing, [""]))


def _first(name: str) -> str:
    return f", first in {shown(name)}" if name else ""
