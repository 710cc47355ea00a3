"""Find out by running a network which images it accepts and what it gives.

The size multiple is the smallest for which all sizes are accepted and take the same path through
the code, with pads of the same widths: a network that pads inside is then never seen padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from deblur_export.errors import DeblurExportError
from deblur_export.models.foreign.runs import POOLED, WAYS, Run, Runs
from deblur_export.models.foreign.user_code import user_code
from deblur_export.models.image_spec import SCALES

SIDES = (64, 128, 256, 48, 224, 512)
MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 3, 5, 6, 7, 10, 12, 14, 20, 24, 28, 40, 48, 56, 96, 112)
ASPECTS = ((0, 1), (1, 0), (3, 2))  # steps of the multiple beyond the smallest height and width
SLOW_SIDE = 64  # pixels beside which a network is run that has to be computed


@dataclass(frozen=True)
class Sizes:
    """What was found by running.

    Attributes:
        channels, scale: of the image and its result.
        output: number of the output of this scale with the most pixels, the first of several.
        outputs: all that are as large, by number.
        count: number of all output tensors.
        multiple, minimum: in pixels.
        square: whether only squares are accepted.
        fixed: whether no other size than the one that was named is accepted.
        pools: whether it pools over the whole image.
        last: the last operators, in their order.
    """

    channels: int
    scale: int
    output: int
    outputs: tuple[int, ...]
    count: int
    multiple: int
    minimum: int
    square: bool
    fixed: bool
    pools: bool
    last: tuple[str, ...]


def probe_sizes(
    net: nn.Module,
    channels: int | None = None,
    output: int | None = None,
    shape: tuple[int, int, int, int] | None = None,
    multiple: int | None = None,
) -> Sizes:
    """Probe a network.

    Args:
        net: in eval mode, on the CPU; not changed.
        channels, output, multiple: where they are known.
        shape: (N, C, H, W) that it is known to accept.

    Raises:
        DeblurExportError: it runs at no size, or gives no image.
    """
    tried = (channels,) if channels else (shape[1],) if shape else (3, 1, 4)
    sides = [shape[2:]] if shape else [(side, side) for side in SIDES]
    runs, start, first = _first_run(net, tried, sides)
    found = _images(first, start, output)
    if not found:
        raise DeblurExportError(_no_image(first, start, output))
    scale, outputs = found
    accepts = _Acceptance(runs, start[1], outputs[0], scale)
    found_grid = accepts.grid(start[2:], multiple)
    if found_grid is None and (shape is None or multiple is not None):
        raise DeblurExportError(accepts.refusal(start[2:], multiple))
    grid, square = found_grid or (1, False)
    minimum = 1 if found_grid is None else accepts.minimum(grid, start[2], square)
    return Sizes(
        channels=start[1],
        scale=scale,
        output=outputs[0],
        outputs=outputs,
        count=len(first.shapes),
        multiple=grid,
        minimum=minimum,
        square=square,
        fixed=found_grid is None,
        pools=POOLED in first.trace,
        last=first.trace[-4:],
    )


def _first_run(
    net: nn.Module, channels: tuple[int, ...], sides: list[tuple[int, int]]
) -> tuple[Runs, tuple[int, int, int, int], Run]:
    """The first shape that is accepted, in the cheapest way that works."""
    for way in WAYS:
        try:
            runs = Runs(net, way)
        except Exception:  # a module that cannot be copied or moved
            continue
        for c, (height, width) in itertools.product(channels, sides):
            run = runs.tried((1, c, height, width))
            if run is not None:
                return runs, (1, c, height, width), run
    height, width = sides[min(2, len(sides) - 1)]
    text = f"1x{channels[0]}x{height}x{width}"
    with user_code(f"the network fails on an image of {text}, and on others tried"):
        Runs(net, "real").run((1, channels[0], height, width))
    raise DeblurExportError(
        f"the network fails on images; name one that it takes with --shape {text}"
    )


def _images(
    run: Run, start: tuple[int, int, int, int], output: int | None
) -> tuple[int, tuple[int, ...]] | None:
    """The scale and the numbers of the outputs that are images of the largest scale."""
    n, c, h, w = start
    scales = {
        number: next(
            (s for s in SCALES if shape == (n, c, s * h, s * w)),
            0,
        )
        for number, shape in enumerate(run.shapes)
        if output is None or number == output
    }
    most = max(scales.values(), default=0)
    return (most, tuple(n for n, s in scales.items() if s == most)) if most else None


def _no_image(run: Run, start: tuple[int, ...], output: int | None) -> str:
    given = ", ".join("x".join(map(str, shape)) for shape in run.shapes[:4]) or "no tensor"
    if output is not None and output >= len(run.shapes):
        return f"--output-index {output}: the network gives {len(run.shapes)} tensors ({given})"
    sent = "x".join(map(str, start))
    return (
        f"for an image of {sent} the network gives {given}: no image of the same channels, "
        f"{', '.join(map(str, SCALES[:-1]))} or {SCALES[-1]} times as high and wide"
    )


@dataclass(frozen=True)
class _Acceptance:
    """Which sizes a network accepts: those at which output number `output` is the image."""

    runs: Runs
    channels: int
    output: int
    scale: int

    def at(self, batch: int, height: int, width: int) -> Run | None:
        run = self.runs.tried((batch, self.channels, height, width))
        wanted = (batch, self.channels, self.scale * height, self.scale * width)
        fits = run is not None and self.output < len(run.shapes)
        return run if fits and run.shapes[self.output] == wanted else None  # type: ignore[union-attr]

    def grid(self, start: tuple[int, int], known: int | None) -> tuple[int, bool] | None:
        """The size multiple in pixels, and whether only squares are accepted; None if no other
        size than `start` is."""
        for square in (False, True):
            accepted: int | None = None
            for multiple in (known,) if known else MULTIPLES:
                found = list(self._seen(multiple, start, square))
                if None in found:
                    continue
                if len({run.trace for run in found if run}) == 1:
                    return multiple, square
                accepted = accepted or multiple
            if accepted is not None:
                return accepted, square
        return None

    def refusal(self, start: tuple[int, int], known: int | None) -> str:
        """Why there is no size multiple."""
        if known is not None:
            return f"--multiple {known}: the network does not accept such sizes"
        return (
            f"the network runs at {start[1]}x{start[0]} and at no other size that was tried; "
            f"export it for that size with --shape 1x{self.channels}x{start[0]}x{start[1]}"
        )

    def _seen(self, multiple: int, start: tuple[int, int], square: bool) -> Iterator[Run | None]:
        least = SLOW_SIDE if self.runs.way == "real" else max(start)
        steps = -(-least // multiple)
        # An odd number of steps: sizes that happen to be multiples of more tell too little.
        steps += 1 - steps % 2
        for tall, wide in ASPECTS:
            height = (steps + tall) * multiple
            run = self.at(1, height, height if square else (steps + wide) * multiple)
            yield run
            if run is None:
                return

    def minimum(self, multiple: int, start: int, square: bool) -> int:
        """The smallest side that is accepted, in pixels; 1 if it is one multiple."""
        for steps in range(1, max(2, -(-start // multiple))):
            side = steps * multiple
            if self.at(1, side, side) and (square or self.at(1, side, side + multiple)):
                return 1 if steps == 1 else side
        return -(-start // multiple) * multiple
