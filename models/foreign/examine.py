"""What is known of a user's network: what the user says, what a probe finds, what is assumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from deblur_export.engine_record import FixedShape
from deblur_export.errors import DeblurExportError
from deblur_export.manifest_blocks import Fact
from deblur_export.models.foreign.adapter import UNIT, Colour, Interface, picked
from deblur_export.models.foreign.measure import (
    accepts_any,
    field_of,
    padding_of,
    period_of,
    reaching,
)
from deblur_export.models.foreign.probe import Sizes, probe_sizes
from deblur_export.models.foreign.user_code import user_code
from deblur_export.models.image_spec import ImageSpec, Padding
from deblur_export.models.random_weights import perturb

Range = tuple[float, float]
Progress = Callable[[str], None]
T = TypeVar("T")
WHOLE: Literal["image"] = (
    "image"  # the field of a network whose output pixels depend on the whole image
)


@dataclass(frozen=True)
class Given:
    """What the user says of a network; None for what is to be found out.

    Attributes:
        multiple, minimum, period: in pixels, as of `ImageSpec`.
        field: radius in pixels, or "image".
        channels, scale, square, padding: as of `ImageSpec`.
        output, range, output_range, colour: as of `Interface`; without `output_range` it is
            `range`.
    """

    multiple: int | None = None
    minimum: int | None = None
    period: int | None = None
    field: int | Literal["image"] | None = None
    channels: int | None = None
    scale: int | None = None
    square: bool | None = None
    padding: Padding | None = None
    output: int | None = None
    range: Range | None = None
    output_range: Range | None = None
    colour: Colour | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to find out."""
        found = (
            self.multiple,
            self.minimum,
            self.period,
            self.field,
            self.channels,
            self.scale,
            self.square,
            self.padding,
            self.output,
        )
        return None not in found


@dataclass(frozen=True)
class Examined:
    """A network's interface, how each value of it is known, and what the user should know."""

    interface: Interface
    facts: dict[str, Fact]
    notes: tuple[str, ...]


class _Picking(nn.Module):
    """The network as a map to one of its outputs."""

    def __init__(self, net: nn.Module, output: int) -> None:
        super().__init__()
        self.net, self.output = net, output

    def forward(self, image: Tensor) -> Tensor:
        return picked(self.net(image), self.output)


def examine(
    net: nn.Module,
    given: Given,
    shape: FixedShape | None = None,
    progress: Progress = lambda step: None,
) -> Examined:
    """Find out what the user does not say.

    Args:
        net: in eval mode, on the CPU; not changed.
        given: what the user says.
        shape: (N, C, H, W) that the network is known to accept; it is then seen at no other size,
            unless it accepts others.
        progress: called with a line for each step.

    Raises:
        DeblurExportError: the network runs at no size, gives no image, or contradicts `given`.
    """
    progress("probing: sizes")
    sizes = probe_sizes(net, given.channels, given.output, shape, given.multiple)
    if given.scale is not None and given.scale != sizes.scale:
        raise DeblurExportError(f"--scale {given.scale}: the network enlarges by {sizes.scale}")
    output = sizes.output
    with user_code("probing the network failed"):
        moved = copy.deepcopy(net)
        perturb(moved, 0)  # residual scales of 0 would hide branches
        if given.output is None and len(sizes.outputs) > 1:
            progress("probing: which output")
            side = max(sizes.minimum, sizes.multiple, 32)
            side = -(-side // sizes.multiple) * sizes.multiple
            output = reaching(moved, (1, sizes.channels, side, side), sizes.outputs)
        one = _Picking(moved, output)
        images = ImageSpec(
            multiple=sizes.multiple,
            padding=given.padding or "zeros",
            channels=sizes.channels,
            scale=sizes.scale,
            minimum=sizes.minimum if given.minimum is None else given.minimum,
            square=sizes.square if given.square is None else given.square,
        )
        notes: tuple[str, ...] = ()
        if sizes.fixed:
            padding = _assumed(given.padding, given.padding or "reflect")
            field, period = _whole(given, images)
        else:
            padding, notes = _padding(one, images, given, progress)
            images = replace(images, padding=padding.value)
            known = replace(given, field=WHOLE) if sizes.pools and given.field is None else given
            field, period = _field(one, images, known, progress)
            if known is not given:
                field = Fact(None, "found")
    images = replace(images, field=field.value, period=period.value)
    try:
        interface = Interface(
            images,
            given.range or UNIT,
            given.output_range or given.range or UNIT,
            given.colour or "RGB",
            output,
        )
    except ValueError as error:
        raise DeblurExportError(str(error)) from error
    facts = {
        "channels": _fact(given.channels, images.channels),
        "scale": _fact(given.scale, images.scale),
        "output": _fact(given.output, output),
        "multiple": _fact(given.multiple, images.multiple),
        "minimum": _fact(given.minimum, images.minimum),
        "square": _fact(given.square, images.square),
        "padding": padding,
        "field": field,
        "period": period,
        "range": _assumed(given.range, interface.range),
        "output_range": _assumed(given.output_range or given.range, interface.output_range),
        "colour": _assumed(given.colour, interface.colour),
    }
    return Examined(interface, facts, (*notes, *_notes(net, sizes, output, given)))


def recorded(facts: Mapping[str, Fact]) -> Given:
    """What a manifest records, as if the user said it: nothing is probed again.

    Raises:
        KeyError, TypeError, ValueError: the facts are not those of a network.
    """
    values = {name: facts[name].value for name in Given.__dataclass_fields__}
    for name in ("range", "output_range"):
        low, high = values[name]
        values[name] = (float(low), float(high))
    if values["field"] is None:
        values["field"] = WHOLE
    given = Given(**values)
    described(given)
    return given


def described(given: Given) -> Examined:
    """A network of which everything is given.

    Raises:
        ValueError, TypeError: the values describe none.
    """
    images = ImageSpec(
        multiple=_known(given.multiple),
        padding=_known(given.padding),
        field=None if isinstance(given.field, str) else _known(given.field),
        channels=_known(given.channels),
        scale=_known(given.scale),
        minimum=_known(given.minimum),
        square=_known(given.square),
        period=_known(given.period),
    )
    interface = Interface(
        images,
        given.range or UNIT,
        given.output_range or given.range or UNIT,
        given.colour or "RGB",
        _known(given.output),
    )
    values = {
        **images.known(),
        "output": interface.output,
        "range": interface.range,
        "output_range": interface.output_range,
        "colour": interface.colour,
    }
    return Examined(interface, {name: Fact(value, "given") for name, value in values.items()}, ())


def _known(value: T | None) -> T:
    if value is None:
        raise ValueError("a value is missing")
    return value


def _fact(given: Any, value: Any) -> Fact:
    return Fact(value, "found" if given is None else "given")


def _assumed(given: Any, value: Any) -> Fact:
    return Fact(value, "assumed" if given is None else "given")


def _padding(
    net: nn.Module, images: ImageSpec, given: Given, progress: Progress
) -> tuple[Fact, tuple[str, ...]]:
    if given.padding is not None:
        return Fact(given.padding, "given"), ()
    if images.multiple == 1:
        return Fact("reflect", "assumed"), ()
    progress("probing: padding")
    found = padding_of(net, images)
    if found is not None:
        return Fact(found, "found"), ()
    if accepts_any(net, images):
        return Fact("reflect", "assumed"), (
            f"the network accepts sizes that are no multiple of {images.multiple} in its own way, "
            "which is neither zeros nor reflection around the image: at such sizes the file pads "
            "the image by reflection (--padding) and differs from the network called directly",
        )
    return Fact("reflect", "assumed"), ()


def _whole(given: Given, images: ImageSpec) -> tuple[Fact, Fact]:
    """Field and period of a network of one size, which cannot be measured."""
    field = given.field if isinstance(given.field, int) else None
    return _assumed(given.field, field), _assumed(given.period, given.period or images.multiple)


def _field(
    net: nn.Module, images: ImageSpec, given: Given, progress: Progress
) -> tuple[Fact, Fact]:
    if given.field is None:
        progress("probing: receptive field")
        radius, measured = field_of(net, images)
        field = Fact(radius, "found" if measured else "assumed")
    else:
        field = Fact(None if given.field == WHOLE else given.field, "given")
    if given.period is not None:
        return field, Fact(given.period, "given")
    if images.multiple == 1:
        return field, Fact(1, "found")
    if field.value is None or field.value > 256:
        return field, Fact(images.multiple, "assumed")
    progress("probing: origins of tiles")
    return field, Fact(period_of(net, images, field.value), "found")


def _notes(net: nn.Module, sizes: Sizes, output: int, given: Given) -> list[str]:
    notes = []
    if sizes.count > 1 and given.output is None:
        notes.append(
            f"the network gives {sizes.count} tensors; number {output} is taken as the restored "
            "image (--output-index)"
        )
    if "tanh" in sizes.last and given.range is None:
        notes.append("it ends in tanh: if it works on images in -1..1, give --range -1,1")
    return notes
