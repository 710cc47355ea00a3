"""Fourier transforms of an exported program as ops RFFT2, IRFFT2 and FFT2 on two real tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from deblur_export.errors import DeblurExportError
from deblur_export.export.pairs.arithmetic import Arithmetic, Pair
from deblur_export.export.pairs.emitter import Emitter, Size, aten, rank
from deblur_export.plugins.ops.rfft2 import NORMS

deblur = torch.ops.deblur


@dataclass(frozen=True)
class Transform:
    """What one call of torch.fft asks for.

    Attributes:
        kind: "r2c" for a real input and half of the columns, "c2r" for its inverse, "c2c" for all.
        axes: the last one is that of which a half is stored.
        norm: as `plugins.ops.rfft2` has it.
        inverse: whether the exponent is positive.
        sizes: of the transform along the axes; None for those of the input.
    """

    kind: str
    axes: tuple[int, ...]
    norm: int
    inverse: bool
    sizes: Sequence[Size] | None = None


def transform_of(name: str, x: Any, args: Sequence[Any], kwargs: Any, width: int) -> Transform:
    """What a call means; `width` is the rank of its input, and `args` stand behind the input."""
    if name.startswith("_fft_"):
        return _low_level(name, args)
    names = ("s", "dim", "norm")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    sizes, axes = given.get("s", given.get("n")), given.get("dim")
    base = name.removeprefix("fft_")
    inverse = base.startswith("i")
    if base[-1] not in "2n":
        axes = [-1 if axes is None else axes]
        sizes = None if sizes is None else [sizes]
    elif axes is None:
        count = width if sizes is None else len(sizes)
        axes = [-2, -1] if base[-1] == "2" else list(range(width - count, width))
    index = NORMS.index(given.get("norm") or "backward")
    kind = "c2c" if "r" not in base else "c2r" if inverse else "r2c"
    return Transform(
        kind,
        tuple(axis % width - width for axis in axes),
        2 - index if inverse else index,
        inverse,
        sizes,
    )


def _low_level(name: str, args: Sequence[Any]) -> Transform:
    axes, norm, last = args[:3]
    if name == "_fft_c2r":
        sizes: list[Any] = [None] * (len(axes) - 1) + [last]
        return Transform("c2r", tuple(axes), norm, True, sizes)
    if name == "_fft_c2c":
        return Transform("c2c", tuple(axes), norm, not last)
    return Transform("r2c" if last else "c2c", tuple(axes), norm, False)


class Transforms:
    """Emits the transforms."""

    def __init__(self, emitter: Emitter, arithmetic: Arithmetic) -> None:
        self.emit, self.arithmetic = emitter, arithmetic

    def apply(self, wanted: Transform, x: Pair) -> Pair | Node:
        """The transform of x: a pair, or a node for "c2r".

        Raises:
            DeblurExportError: it is over more than two axes.
        """
        if len(wanted.axes) > 2:
            raise DeblurExportError(
                f"a Fourier transform over {len(wanted.axes)} axes has no translation; transform "
                "the last two axes"
            )
        re, im = self.arithmetic.dense(x) if x.im is not None else (self.arithmetic.real(x), None)
        width = self._width(wanted, re)
        parts = [self._resized(wanted, part, width) for part in (re, im) if part is not None]
        ready = [self._planes(wanted, part) for part in parts]
        emit, settings = self.emit, {"norm": wanted.norm}
        back = self._back(wanted, parts[0])
        if wanted.kind == "c2r":
            zero = [emit.call(aten.zeros_like.default, ready[0])] * (im is None)
            return back(emit.call(deblur.irfft2.default, *ready, *zero, width, **settings))
        if im is None:
            settings |= {"onesided": int(wanted.kind == "r2c")}
            made = emit.call(deblur.rfft2.default, ready[0], **settings)
        else:
            settings |= {"inverse": int(wanted.inverse)}
            made = emit.call(deblur.fft2.default, *ready, **settings)
        result = Pair(back(emit.item(made, 0)), back(emit.item(made, 1)))
        return self.arithmetic.conj(result) if im is None and wanted.inverse else result

    def _width(self, wanted: Transform, x: Node) -> Size:
        """The number of values along the last axis."""
        if wanted.sizes is not None and wanted.sizes[-1] not in (None, -1):
            return wanted.sizes[-1]
        own, arithmetic = self.emit.size(x, wanted.axes[-1]), self.emit.arithmetic
        if wanted.kind != "c2r":
            return own
        return arithmetic(operator.mul, arithmetic(operator.sub, own, 1), 2)

    def _resized(self, wanted: Transform, x: Node, width: Size) -> Node:
        emit = self.emit
        for axis, size in zip(wanted.axes[:-1], wanted.sizes or (), strict=False):
            if size not in (None, -1):
                x = emit.resized(x, axis, size)
        if wanted.kind == "c2r":
            half = emit.arithmetic(operator.floordiv, width, 2)
            width = emit.arithmetic(operator.add, half, 1)
        return emit.resized(x, wanted.axes[-1], width)

    def _planes(self, wanted: Transform, x: Node) -> Node:
        """x with four axes, of which the last two are transformed."""
        emit = self.emit
        if len(wanted.axes) == 1:
            x = emit.call(aten.unsqueeze.default, x, rank(x))
            x = emit.call(aten.movedim.int, x, wanted.axes[0] - 1, -1)
        elif wanted.axes != (-2, -1):
            x = emit.call(aten.movedim.intlist, x, list(wanted.axes), [-2, -1])
        while rank(x) < 4:
            x = emit.call(aten.unsqueeze.default, x, 0)
        if rank(x) > 4:
            x = emit.call(aten.flatten.using_ints, x, 0, rank(x) - 4)
        return x

    def _back(self, wanted: Transform, x: Node) -> Callable[[Node], Node]:
        """What undoes `_planes` for a result."""
        emit, axes = self.emit, wanted.axes
        extra = 1 if len(axes) == 1 else 0
        leading = [axis for axis in range(-rank(x), 0) if axis not in axes]

        def undone(y: Node) -> Node:
            if len(leading) + 2 != 4 or extra:
                kept = [emit.size(x, axis) for axis in leading]
                ends = [emit.size(y, axis) for axis in ((-1,) if extra else (-2, -1))]
                y = emit.call(aten.reshape.default, y, [*kept, *ends])
            if axes not in ((-1,), (-2, -1)):
                last = [-1] if extra else [-2, -1]
                y = emit.call(aten.movedim.intlist, y, last, list(axes))
            return y

        return undone
