"""Complex numbers as pairs of real nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from deblur_export.export.pairs.emitter import Emitter, aten

# A real tensor, a number, or None for zeros.
Part = Node | float | None


@dataclass(frozen=True)
class Pair:
    """re + i im."""

    re: Part
    im: Part = None


def pair_of_number(value: complex) -> Pair:
    return Pair(value.real or None, value.imag or None)


class Arithmetic:
    """Emits arithmetic on pairs; parts that are zero cost nothing."""

    def __init__(self, emitter: Emitter) -> None:
        self.emit = emitter

    def dense(self, x: Pair) -> tuple[Node, Node]:
        """Both parts as tensors, of which one at least is there."""
        like = next(part for part in (x.re, x.im) if isinstance(part, Node))
        re, im = (self._tensor(part, like) for part in (x.re, x.im))
        return re, im

    def real(self, x: Pair) -> Node:
        return self.dense(x)[0]

    def _tensor(self, part: Part, like: Node) -> Node:
        if part is None:
            return self.emit.call(aten.zeros_like.default, like)
        if isinstance(part, Node):
            return part
        return self.emit.call(aten.full_like.default, like, part)

    def add(self, x: Pair, y: Pair) -> Pair:
        return Pair(self._add(x.re, y.re), self._add(x.im, y.im))

    def sub(self, x: Pair, y: Pair) -> Pair:
        return self.add(x, self.neg(y))

    def neg(self, x: Pair) -> Pair:
        return Pair(self._neg(x.re), self._neg(x.im))

    def conj(self, x: Pair) -> Pair:
        return Pair(x.re, self._neg(x.im))

    def mul(self, x: Pair, y: Pair) -> Pair:
        return self.bilinear(self._mul, x, y)

    def bilinear(self, product: Callable[[Part, Part], Part], x: Pair, y: Pair) -> Pair:
        """x y for a product that is linear in both; it gives None if one of them is None."""
        re = self._add(product(x.re, y.re), self._neg(product(x.im, y.im)))
        return Pair(re, self._add(product(x.re, y.im), product(x.im, y.re)))

    def div(self, x: Pair, y: Pair) -> Pair:
        if y.im is None:
            return Pair(self._div(x.re, y.re), self._div(x.im, y.re))
        square = self._square(y)
        above = self.mul(x, self.conj(y))
        return Pair(self._div(above.re, square), self._div(above.im, square))

    def abs(self, x: Pair) -> Node:
        if x.im is None:
            return self.emit.call(aten.abs.default, x.re)
        return self.emit.call(aten.sqrt.default, self._square(x))

    def angle(self, x: Pair) -> Node:
        re, im = self.dense(x)
        return self.emit.call(aten.atan2.default, im, re)

    def exp(self, x: Pair) -> Pair:
        length = None if x.re is None else self._unary(aten.exp.default, x.re)
        if x.im is None:
            return Pair(length if length is not None else 1.0)
        turn = self.polar(1.0, x.im)
        return turn if length is None else self.mul(Pair(length), turn)

    def polar(self, length: Part, angle: Part) -> Pair:
        cos, sin = (self._unary(f, angle or 0.0) for f in (aten.cos.default, aten.sin.default))
        return Pair(self._mul(length, cos), self._mul(length, sin))

    def _square(self, x: Pair) -> Part:
        return self._add(self._mul(x.re, x.re), self._mul(x.im, x.im))

    def _unary(self, target: Any, x: Node | float) -> Node | float:
        if isinstance(x, Node):
            return self.emit.call(target, x)
        return float(target(torch.tensor(x, dtype=torch.float64)))

    def _add(self, a: Part, b: Part) -> Part:
        if a is None or b is None:
            return b if a is None else a
        return self._binary(aten.add.Tensor, a, b)

    def _neg(self, a: Part) -> Part:
        if isinstance(a, Node):
            return self.emit.call(aten.neg.default, a)
        return None if a is None else -a

    def _mul(self, a: Part, b: Part) -> Part:
        if a is None or b is None:
            return None
        if isinstance(b, float) and b == 1:
            return a
        if isinstance(a, float) and a == 1:
            return b
        return self._binary(aten.mul.Tensor, a, b)

    def _div(self, a: Part, b: Part) -> Part:
        if isinstance(a, float) and isinstance(b, Node):
            return self.emit.call(aten.mul.Tensor, self.emit.call(aten.reciprocal.default, b), a)
        return None if a is None else self._binary(aten.div.Tensor, a, b)

    def _binary(self, target: Any, a: Node | float, b: Part) -> Node | float:
        if isinstance(a, Node):
            return self.emit.call(target, a, b)
        if isinstance(b, Node):  # sums and products
            return self.emit.call(target, b, a)
        return float(target(torch.tensor(a, dtype=torch.float64), torch.tensor(b)))
