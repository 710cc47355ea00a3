"""The options that name a network, of this package or of the user, and describe it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deblur_export.commands.common import ema_option
from deblur_export.models import NAMES

if TYPE_CHECKING:
    from deblur_export.models.loading import NetworkChoice

F = TypeVar("F", bound=Callable[..., Any])
OF_THE_USER = "Your network: "


class RangeType(click.ParamType):  # type: ignore[type-arg]
    """Two numbers, the smaller first, as in -1,1."""

    name = "LOW,HIGH"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        try:
            low, high = map(float, str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is not two numbers like -1,1", param, ctx)
        if not (low < high and abs(low) <= 1e6 and abs(high) <= 1e6):
            self.fail(f"'{value}': the first must be the smaller", param, ctx)
        return low, high


class CountType(click.ParamType):  # type: ignore[type-arg]
    """One of a few numbers."""

    name = "N"

    def __init__(self, counts: tuple[int, ...]) -> None:
        self.counts = counts

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        count = click.INT.convert(value, param, ctx)
        if count not in self.counts:
            self.fail(f"{count} is none of {', '.join(map(str, self.counts))}", param, ctx)
        return int(count)


class FieldType(click.ParamType):  # type: ignore[type-arg]
    """A radius in pixels, or `image`."""

    name = "PIXELS|image"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if value == "image":
            return "image"
        return click.IntRange(0, 16384).convert(value, param, ctx)


_SIDE = click.IntRange(1, 4096)
NAMING = (
    click.option(
        "--model",
        metavar="NAME",
        help=f"Network: {', '.join(NAMES)}; or your own: package.module:callable or "
        "path/file.py:Name, whose code is run. Optional with a checkpoint of the former, or of an "
        "architecture that an installed spandrel knows.",
    ),
    click.option("--variant", help="Variant of the network; see `deblur-export models`."),
    click.option(
        "--weights", help="Checkpoint (torch.save or safetensors), demo, random:SEED or own."
    ),
    ema_option,
    click.option(
        "--local",
        is_flag=True,
        help="Pool around each pixel instead of over the image (TLC), as published scores do.",
    ),
    click.option(
        "--arg",
        "arguments",
        multiple=True,
        metavar="NAME=VALUE",
        help=f"{OF_THE_USER}an argument of the callable, as in dim=48 or blocks=[4,6]; repeat.",
    ),
)
# The fields of `Given`.
DESCRIBING = (
    click.option("--channels", type=CountType((1, 3, 4)), help=f"{OF_THE_USER}1, 3 or 4."),
    click.option(
        "--scale", type=CountType((1, 2, 3, 4, 8)), help=f"{OF_THE_USER}how much it enlarges."
    ),
    click.option(
        "--output-index",
        "output_index",
        type=click.IntRange(0, 99),
        help=f"{OF_THE_USER}which of its outputs is the restored image, from 0.",
    ),
    click.option(
        "--multiple", type=_SIDE, help=f"{OF_THE_USER}height and width are padded to multiples."
    ),
    click.option("--minimum", type=_SIDE, help=f"{OF_THE_USER}smallest side in pixels."),
    click.option("--square/--any-aspect", default=None, help=f"{OF_THE_USER}accepts squares only."),
    click.option(
        "--padding",
        type=click.Choice(("zeros", "reflect")),
        help=f"{OF_THE_USER}how images are padded.",
    ),
    click.option(
        "--range",
        "value_range",
        type=RangeType(),
        help=f"{OF_THE_USER}range of its images.  [default: 0,1]",
    ),
    click.option(
        "--output-range",
        type=RangeType(),
        help=f"{OF_THE_USER}range of its results.  [default: --range]",
    ),
    click.option(
        "--colour",
        type=click.Choice(("RGB", "BGR")),
        help=f"{OF_THE_USER}order of its channels.  [default: RGB]",
    ),
    click.option(
        "--field", type=FieldType(), help=f"{OF_THE_USER}radius of its receptive field, for tiles."
    ),
    click.option(
        "--period", type=_SIDE, help=f"{OF_THE_USER}origins of tiles are multiples of this."
    ),
)
FIELDS = {"output": "output_index", "range": "value_range"}  # options of other names


def network_options(command: F) -> F:
    """Add the options that name a network and describe it."""
    for option in reversed((*NAMING, *DESCRIBING)):
        command = option(command)
    return command


def network_choice(options: dict[str, Any]) -> NetworkChoice:
    """Take the options of `network_options` out of `options`.

    Raises:
        DeblurExportError: an --arg is malformed.
    """
    from deblur_export.models.foreign.arguments import as_literal, read_arguments
    from deblur_export.models.foreign.examine import Given
    from deblur_export.models.loading import NetworkChoice

    given = {field: options.pop(FIELDS.get(field, field)) for field in Given.__dataclass_fields__}
    return NetworkChoice(
        name=options.pop("model"),
        weights=options.pop("weights"),
        variant=options.pop("variant"),
        local=options.pop("local"),
        ema=options.pop("ema"),
        arguments=as_literal(read_arguments(options.pop("arguments"))),
        given=Given(**given),
    )
