"""What a network must not do if one graph is to compute the same: be random, keep state between
runs, write into its input, or give numbers that are not finite."""

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
    if not torch.equal(first, _run(copy.deepcopy(net), image.clone())):
        name = _first_difference(_calls(net, image), _calls(net, image))
        raise DeblurExportError(
            f"two runs on one image differ: the network is random{_first(name)}; switch its noise "
            "or dropout off in eval mode"
        )
    used = copy.deepcopy(net)
    _run(used, other)
    if not torch.equal(first, _run(used, image.clone())):
        name = _first_difference(_calls(net, image), _calls(net, image, used))
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
