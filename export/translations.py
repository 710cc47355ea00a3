"""Translations of ATen operators that take the place of the exporter's own.

torch writes an assignment to a part of a tensor, x[:, 2:5] = y, as ScatterND. OpenVINO refuses
those that shifted-window masks consist of. Here it is the part before, the new one and the part
behind, put together. An assignment by a mask, x[x > 0] = 1, becomes a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import onnx_ir as ir
import torch
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.ops import core

END = 2**63 - 1


def slice_scatter(
    x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Any:
    """x with src in place of x[start:end:step] along one axis."""
    if isinstance(step, int) and step == 1:
        return _replaced(x, src, dim, 0 if start is None else start)
    return _every(x, src, dim, start, end, step)


def select_scatter(x: Any, src: Any, dim: int, index: Any) -> Any:
    """x with src in place of x[index] along one axis."""
    return _replaced(x, op.Unsqueeze(src, _ints(dim)), dim, index)


def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """x with values at indices; a choice where a mask alone selects places for one value."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    ((axis, mask), *others) = given
    masked = mask.dtype == ir.DataType.BOOL
    if masked and not others and not accumulate and len(values.shape) == 0:
        behind = len(x.shape) - axis - len(mask.shape)
        if behind:
            mask = op.Unsqueeze(mask, _ints(*range(-behind, 0)))
        return op.Where(mask, values, x)
    return cast(Callable[..., Any], core.aten_index_put)(x, indices, values, accumulate)


def _replaced(x: Any, src: Any, dim: int, start: Any) -> Any:
    """x with src in place of as many entries from `start` on, which may be negative."""
    axis = dim % len(x.shape)
    before = op.Slice(x, _ints(0), _vector(start), _ints(axis))
    ends = [op.Shape(part, start=axis, end=axis + 1) for part in (before, src)]
    behind = op.Slice(x, op.Add(*ends), _ints(END), _ints(axis))
    return op.Concat(before, src, behind, axis=axis)


def _every(x: Any, src: Any, dim: int, start: Any, end: Any, step: Any) -> Any:
    """The same for a step above 1: each entry of x is chosen from src or kept."""
    axis = dim % len(x.shape)
    count = op.Squeeze(op.Shape(x, start=axis, end=axis + 1), _ints(0))
    positions = op.Range(_scalar(0), count, _scalar(1))
    bounds = _vector(0 if start is None else start), _vector(END if end is None else end)
    # Where the range is empty, its first position is that of an entry behind the last.
    first = op.Slice(
        op.Concat(op.Slice(positions, *bounds), op.Unsqueeze(count, _ints(0)), axis=0),
        _ints(0),
        _ints(1),
    )
    last = op.Add(first, op.Shape(op.Slice(positions, *bounds)))
    offset, width = op.Sub(positions, first), _vector(step)
    inside = op.And(
        op.And(op.GreaterOrEqual(offset, _ints(0)), op.Less(positions, last)),
        op.Equal(op.Mod(offset, width), _ints(0)),
    )
    # An entry more than src has, for positions outside and for a src of none.
    one = op.Slice(x, _ints(0), _ints(1), _ints(axis))
    source = op.Concat(src, one, axis=axis)
    place = op.Where(inside, op.Div(offset, width), op.Shape(src, start=axis, end=axis + 1))
    behind = len(x.shape) - 1 - axis
    if behind:
        inside = op.Unsqueeze(inside, _ints(*range(1, behind + 1)))
    return op.Where(inside, op.Gather(source, place, axis=axis), x)


def _vector(value: Any) -> Any:
    """A number, or a scalar of the graph, as a vector of one element."""
    return _ints(value) if isinstance(value, int) else op.Reshape(value, _ints(1))


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _scalar(value: int) -> Any:
    return op.Constant(value_int=value)


aten = torch.ops.aten
TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    aten.slice_scatter.default: slice_scatter,
    aten.select_scatter.default: select_scatter,
    aten.index_put.default: index_put,
}
