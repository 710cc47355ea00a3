"""Capture a network as an exported program that is checked against the network.

`torch.onnx.export` hides what it could not capture: where the code needs a batch of 2, it captures
again with a fixed batch and leaves the axis named "batch"; and the guards that say for which sizes
a program holds are dropped on the way to ONNX. So the program is captured here by
`torch.export.export`, from the most freedom to the least, and is then run, with its guards, beside
fresh copies of the network at other sizes and batches.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as config

from deblur_export.engine_record import FixedShape
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.adaptive_pooling import SizedPooling
from deblur_export.export.capture_reasons import GuardPlaces, Places, reason_of
from deblur_export.models.image_spec import ImageSpec

Dimension = Literal["batch", "height", "width"]
LADDER: tuple[tuple[Dimension, ...], ...] = (("batch", "height", "width"), ("height", "width"), ())
# Sizes in multiples of the network's size multiple, from the smallest that is tried, and batches,
# at which a program is run. It is captured at the first size, with a batch of 2, or of 1 if the
# batch is not free.
SIZES = ((2, 3), (1, 1), (3, 2))
SMALLEST = 8  # pixels; what a kernel of 7x7 or a padding by reflection needs
BATCHES = (1, 3)
TALKATIVE = ("torch.fx.experimental.symbolic_shapes", "torch.export._trace")
FALLBACK_SIDE = 256  # pixels; of a network that cannot be captured with free sizes
# Largest |difference| between program and network relative to the largest |output|. They run the
# same float32 kernels; a size that was baked in, or a lost branch, is a hundred times larger.
TOLERANCE = 1e-4
# Guards against one size, such as 1 row of pixels or of windows, come from strides, which a graph
# does not have: at this size the output alone decides. The other guards are held at every size.
ONE_SIZE = re.compile(r"(> 1|!= \d+|>= 2)$")


@dataclass(frozen=True)
class Capture:
    """A captured network.

    Attributes:
        program: what `torch.export.export` returned.
        shape: (N, C, H, W) of the sample that it was captured with.
        free: the dimensions that may have any size; height and width any multiple.
        dynamic: the dynamic shapes of the input as `torch.export.export` takes them.
        notes: for each step down from all dimensions free, one line that says why.
    """

    program: ExportedProgram
    shape: FixedShape
    free: tuple[Dimension, ...]
    dynamic: dict[int, object] | None
    notes: tuple[str, ...]


def capture(net: nn.Module, images: ImageSpec, shape: FixedShape | None) -> Capture:
    """Capture a network with as many free dimensions as its code allows.

    Args:
        net: a network that `check_behaviour` has passed, which gives one tensor for images as
            `images` says, padded by the caller. It is not changed.
        images: which images it accepts.
        shape: a fixed shape, or None for free dimensions.

    Raises:
        CheckFailedError: a program of this fixed shape computes something else than the network.
        DeblurExportError: the network cannot be captured.
    """
    ladder = LADDER if shape is None else ((),)
    notes: list[str] = []
    for free in ladder:
        sample = shape or sample_shape(free, images)
        found = _attempt(net, sample, free, images)
        if isinstance(found, Capture):
            return Capture(
                found.program, found.shape, found.free, found.dynamic, (*notes, *found.notes)
            )
        if free == ladder[-1]:
            kind = CheckFailedError if found.computes_else else DeblurExportError
            raise kind(f"the network cannot be captured at {_text(sample)}: {found.reason}")
        notes.append(f"{_listed(_lost(free))} cannot be free: {found.reason}")
    raise AssertionError("the ladder ends in a return or an error")


@dataclass(frozen=True)
class _Failure:
    reason: str
    computes_else: bool = False


def _attempt(
    net: nn.Module, shape: FixedShape, free: tuple[Dimension, ...], images: ImageSpec
) -> Capture | _Failure:
    """One step of the ladder."""
    dynamic = _dynamic(free, images)

    def places() -> GuardPlaces:
        """Where sizes were decided; found by a second run, since it slows the first."""
        found = GuardPlaces()
        with found, contextlib.suppress(Exception):
            _export(net, shape, dynamic)
        return found

    try:
        program = _export(net, shape, dynamic)
    except Exception as error:  # the user's code runs inside: anything can be raised
        return _Failure(reason_of(error, places))
    failure = _difference(program, net, _shapes(shape, free, images), places)
    return failure or Capture(program, shape, free, dynamic, ())


def capture_again(
    net: nn.Module, images: ImageSpec, free: tuple[Dimension, ...], shape: FixedShape
) -> Capture:
    """Capture a network of which it is known what can be free, without checks.

    Args:
        net, images: as for `capture`.
        free: the free dimensions, as `capture` found them.
        shape: the fixed shape, if nothing is free.
    """
    sample = sample_shape(free, images) if free else shape
    dynamic = _dynamic(free, images)
    return Capture(_export(net, sample, dynamic), sample, free, dynamic, ())


def _export(
    net: nn.Module, shape: FixedShape, dynamic: dict[int, object] | None
) -> ExportedProgram:
    # As torch.onnx does: a dimension of 1 is a size like any other. Without gradients, so that code
    # which switches them off changes nothing, and needs no graph of its own.
    oblivious = config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with _quiet(), oblivious, torch.no_grad(), SizedPooling():
        return torch.export.export(
            copy.deepcopy(net),
            (torch.zeros(shape),),
            dynamic_shapes=(dynamic,) if dynamic else None,
            strict=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within it torch prints no warnings, and not the graph that it could not finish: what people
    need to know of it is in the errors."""
    loggers = [
        logger
        for logger in map(logging.getLogger, TALKATIVE)
        if not any(isinstance(handler, GuardPlaces) for handler in logger.handlers)
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _difference(
    program: ExportedProgram, net: nn.Module, shapes: Iterator[FixedShape], places: Places
) -> _Failure | None:
    """Why a program is not the network at one of these shapes, or None."""
    guarded, unguarded = program.module(), program.module(check_guards=False)
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        image = torch.rand(shape, generator=generator)
        with torch.no_grad():
            try:
                expected = copy.deepcopy(net)(image.clone())
            except Exception as error:
                return _Failure(f"the network fails at {_text(shape)}: {reason_of(error, places)}")
            try:
                try:
                    actual = guarded(image)
                except AssertionError as guard:
                    if not ONE_SIZE.search(str(guard)):
                        raise
                    actual = unguarded(image)
            except Exception as error:
                return _Failure(reason_of(error, places))
        if actual.shape != expected.shape:
            return _Failure(
                f"at {_text(shape)} the captured program gives {_text(actual.shape)}, the network "
                f"{_text(expected.shape)}",
                computes_else=True,
            )
        change = ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
        if not change <= TOLERANCE:
            return _Failure(
                f"at {_text(shape)} the captured program differs from the network by {change:.1e} "
                "of its largest output",
                computes_else=True,
            )
    return None


def sample_shape(free: tuple[Dimension, ...], images: ImageSpec) -> FixedShape:
    """The shape that a network is captured with if these dimensions are to be free."""
    if not free:
        return (1, images.channels, *images.padded(FALLBACK_SIDE, FALLBACK_SIDE))
    return (2 if "batch" in free else 1, images.channels, *_size(images, *SIZES[0]))


def _size(images: ImageSpec, height: int, width: int) -> tuple[int, int]:
    """A size in pixels from one in multiples, both counted from the smallest that is tried."""
    least = images.padded(SMALLEST, SMALLEST)[0] // images.multiple - 1
    if images.square:
        height = width = max(height, width)
    return (least + height) * images.multiple, (least + width) * images.multiple


def _dynamic(free: tuple[Dimension, ...], images: ImageSpec) -> dict[int, object] | None:
    if not free:
        return None
    least = images.padded(1, 1)[0] // images.multiple
    if images.channels == images.multiple == 1:
        # The strides of a grey image of one pixel say nothing: torch.export asks for two a side.
        least = max(least, 2)
    options = {"min": least} if least > 1 else {}
    sides = [images.multiple * Dim(name, **options) for name in ("h", "w")]
    if images.square:
        sides[1] = sides[0]
    batch = {0: Dim("batch")} if "batch" in free else {}
    return {**batch, 2: sides[0], 3: sides[1]}


def _shapes(
    shape: FixedShape, free: tuple[Dimension, ...], images: ImageSpec
) -> Iterator[FixedShape]:
    """The shapes at which a program is compared."""
    if not free:
        return iter((shape,))
    batches = BATCHES if "batch" in free else (1,)
    return (
        (batch, images.channels, *_size(images, height, width))
        for batch, (height, width) in itertools.product(batches, SIZES)
    )


def _lost(free: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """What the next step of the ladder gives up."""
    following = LADDER[LADDER.index(free) + 1]
    return tuple(name for name in free if name not in following)


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(names)


def _text(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape))
