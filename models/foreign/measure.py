"""Measure on a computed run: which output is the image, how far an output pixel sees, how the
network pads, and at which shifts of the image it repeats itself.

A gradient that is zero by chance would make the field too small, so it only proposes: a tiled run
beside a whole one proves (see `export`).
"""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor, nn

from deblur_export.models.blocks.padding import pad_image
from deblur_export.models.foreign.adapter import tensors_of
from deblur_export.models.foreign.runs import image
from deblur_export.models.image_spec import ImageSpec, Padding

FIELD_SIDES = (128, 256)  # pixels; a field that does not fit is taken as the whole image
FIELD_SECONDS = 10.0  # of a run; beyond this a larger one is not made
SAME = 1e-5  # relative to the largest output: the same but for the order of sums


def reaching(net: nn.Module, shape: tuple[int, ...], outputs: tuple[int, ...]) -> int:
    """Of several outputs of one size the one that reaches most parameters, the first of equals."""
    work = copy.deepcopy(net)
    parameters = [p.requires_grad_() for p in work.parameters() if p.is_floating_point()]
    if not parameters:
        return outputs[0]
    with torch.enable_grad():
        results = tensors_of(work(image(shape)))

    def reached(number: int) -> int:
        if not results[number].requires_grad:
            return 0
        grads = torch.autograd.grad(
            results[number].sum(), parameters, retain_graph=True, allow_unused=True
        )
        return sum(p.numel() for p, g in zip(parameters, grads, strict=True) if g is not None)

    return max(outputs, key=reached)


def field_of(net: nn.Module, images: ImageSpec) -> tuple[int | None, bool]:
    """Radius in pixels of what an output pixel depends on, or None if that does not fit into the
    largest of `FIELD_SIDES` or is the whole image; and whether it was measured, which it is not if
    it would take minutes.

    Args:
        net: maps [1, C, H, W] to one image.
        images: which it accepts.
    """
    block = max(images.tile_period, 8)
    for side in FIELD_SIDES:
        length = images.padded(side, side)[0]
        if length < 4 * block:
            continue
        start = time.perf_counter()
        seen = _extent(net, images, length, block)
        if seen is None:
            return None, False
        top = (length - block) // 2 // block * block
        if seen[0] > 0 and seen[1] < length - 1:
            return max(top - seen[0], seen[1] - (top + block - 1), 0), True
        if time.perf_counter() - start > FIELD_SECONDS:
            return None, False
    return None, True


def _extent(net: nn.Module, images: ImageSpec, side: int, block: int) -> tuple[int, int] | None:
    """First and last row or column of a square image that a block at its centre depends on."""
    top = (side - block) // 2 // block * block
    given = image((1, images.channels, side, side))
    try:
        seen = _gradient(net, images, given, slice(top, top + block))
    except RuntimeError:  # it writes over what a gradient needs
        seen = _change(net, images, given, slice(top, top + block))
    rows = (
        []
        if seen is None
        else [
            index
            for axes in ((0, 1, 3), (0, 1, 2))
            for index in seen.abs().amax(dim=axes).nonzero().flatten().tolist()
        ]
    )
    return (min(rows), max(rows)) if rows else None


def _gradient(net: nn.Module, images: ImageSpec, given: Tensor, block: slice) -> Tensor | None:
    """The gradient of random sums over a block of the result; None if there is none."""
    given = given.requires_grad_()
    with torch.enable_grad():
        result = copy.deepcopy(net)(given)
        if not result.requires_grad:
            return None
        inside = slice(images.scale * block.start, images.scale * block.stop)
        centre = result[:, :, inside, inside]
        signs = torch.randn(centre.shape, generator=torch.Generator().manual_seed(1))
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            (centre * signs).sum(), given, allow_unused=True
        )
    return gradients[0]


def _change(net: nn.Module, images: ImageSpec, given: Tensor, block: slice) -> Tensor:
    """How the result changes with a block of the image, in pixels of the image: what the block
    reaches is what reaches a block, since the network is the same everywhere."""
    given = given.detach()
    changed = given.clone()
    changed[:, :, block, block] = 1 - changed[:, :, block, block]
    difference = (_run(net, given.clone()) - _run(net, changed)).abs()
    return nn.functional.max_pool2d(difference, images.scale)


def period_of(net: nn.Module, images: ImageSpec, field: int) -> int:
    """The smallest shift in pixels, a divisor of the multiple, by which the result shifts along
    with the image."""
    multiple = images.multiple
    margin = field + images.padded(1, 1)[0]
    side = images.padded(2 * margin + 64, 1)[0]
    whole = image((1, images.channels, side + multiple, side + multiple))
    expected = _run(net, whole[:, :, :side, :side])
    s = images.scale
    for shift in range(1, multiple):
        if multiple % shift:
            continue
        moved = _run(net, whole[:, :, shift : side + shift, shift : side + shift])
        a = expected[:, :, s * (margin + shift) : s * (side - margin), s * (margin + shift) :]
        a = a[..., : s * (side - 2 * margin - shift)]
        b = moved[:, :, s * margin : s * (side - margin - shift), s * margin :]
        b = b[..., : s * (side - 2 * margin - shift)]
        if a.shape == b.shape and _close(a, b):
            return shift
    return multiple


def padding_of(net: nn.Module, images: ImageSpec) -> Padding | None:
    """How a network that accepts any size pads inside to its multiple; None if it does not accept
    others, or pads in a way that is neither zeros nor reflection.

    Args:
        net: maps [1, C, H, W] to one image.
        images: with the multiple.
    """
    least = images.padded(1, 1)[0]
    height, width = least + images.multiple + 1, least + images.multiple + max(1, least // 2)
    if images.square:
        width = height
    odd = image((1, images.channels, height, width))
    try:
        expected = _run(net, odd)
    except Exception:  # the network's own code refuses the size
        return None
    s = images.scale
    if expected.shape[2:] != (s * height, s * width):
        return None
    kinds: tuple[Padding, ...] = ("zeros", "reflect")
    for padding in kinds:
        spec = ImageSpec(
            images.multiple,
            padding,
            minimum=images.minimum,
            square=images.square,
            channels=images.channels,
            scale=images.scale,
        )
        found = _run(net, pad_image(odd, spec))[:, :, : s * height, : s * width]
        if _close(expected, found):
            return padding
    return None


def accepts_any(net: nn.Module, images: ImageSpec) -> bool:
    """Whether a network accepts a size that is no multiple."""
    side = images.padded(1, 1)[0] + images.multiple + 1
    try:
        found = _run(net, image((1, images.channels, side, side)))
    except Exception:  # the network's own code refuses the size
        return False
    return found.shape[2:] == (images.scale * side, images.scale * side)


def _run(net: nn.Module, given: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = copy.deepcopy(net)(given)
    return result


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= SAME * a.abs().max())
