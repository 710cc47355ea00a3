"""Symbolic shapes of the custom ops' tensors, such as "N, 2*kernel*kernel, H, W".

The axes are separated by commas. Each is an integer, a symbol (a size such as C, or an attribute of
the op such as kernel), or an expression of them with +, -, *, / and parentheses. A division is one
without a remainder, which the op checks.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping, Sequence

Values = Mapping[str, int]

_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
}


@functools.cache
def axes_of(shape: str) -> tuple[str, ...]:
    """The expressions of the single axes."""
    return tuple(axis.strip() for axis in shape.split(",")) if shape else ()


def evaluate(expression: str, values: Values) -> int:
    """The integer that an expression stands for.

    Raises:
        KeyError: a symbol has no value.
        SyntaxError: it is no such expression.
    """
    return _compiled(expression)(values)


def evaluate_shape(shape: str, values: Values) -> tuple[int, ...]:
    """The sizes that a shape stands for; raises what `evaluate` raises."""
    return tuple(evaluate(axis, values) for axis in axes_of(shape))


def bind(shapes: Mapping[str, str], sizes: Mapping[str, Sequence[int]], known: Values) -> Values:
    """The values of all symbols, given the sizes of tensors.

    Args:
        shapes: symbolic shape of each tensor, by name. A symbol gets its value from the first axis
            that consists of it alone, and must have it from then on.
        sizes: those of the tensors that are there, by name.
        known: values that are known before, such as those of attributes.

    Raises:
        ValueError: a tensor has another number of axes, or a size that does not fit; the message
            names it, and the tensor from which the expected size is.
    """
    values, learnt_from = dict(known), dict[str, str]()
    for name, shape in shapes.items():
        if name not in sizes:
            continue
        size, axes = tuple(sizes[name]), axes_of(shape)
        if len(size) != len(axes):
            raise ValueError(f"{name} has {len(size)} dimensions, not {len(axes)}")
        for axis, own in zip(axes, size, strict=True):
            if axis.isidentifier() and axis not in values:
                values[axis], learnt_from[axis] = own, name
        expected = evaluate_shape(shape, values)
        if size != expected:
            wrong = next(a for a, x, y in zip(axes, size, expected, strict=True) if x != y)
            said = f" ({wrong} as in {learnt_from[wrong]})" if wrong in learnt_from else ""
            raise ValueError(f"{name} is {size}, not {expected}{said}")
    return values


@functools.cache
def _compiled(expression: str) -> Callable[[Values], int]:
    return _closure(ast.parse(expression, mode="eval").body)


def _closure(node: ast.expr) -> Callable[[Values], int]:
    match node:
        case ast.Constant(value=int(number)):
            return lambda values: number
        case ast.Name(id=name):
            return lambda values: values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            combine, first, second = _OPERATORS[type(op)], _closure(left), _closure(right)
            return lambda values: combine(first(values), second(values))
    raise SyntaxError(f"no size: {ast.unparse(node)}")
