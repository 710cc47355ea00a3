"""The float32 graph inside a file of low precision: the file without its roundings.

A file in FP16, BF16 or INT8 is judged with wide tolerances, which alone would also pass a graph
that computes something else. Its roundings are therefore taken out: Casts to a low precision and
QDQ pairs do nothing, and a rounded weight is replaced by the weight of the reference that it is the
rounding of. What remains computes in float32 and is judged as a float32 file is. A constant
that is the rounding of no weight stays as it is, and so does what is wrong with it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from deblur_export.errors import CheckFailedError
from deblur_export.export.runtimes.emulated_session import widened
from deblur_export.precision import LOW

Array = NDArray[np.float32]
# A rounded weight lies within half a step of the exact one, up to rounding of this comparison.
HALF_STEP = 0.5 + 1e-3
LOW_TYPES = {TensorProto.DataType.Value(low.onnx): low for low in LOW.values()}


def float32_form(model: onnx.ModelProto, known: Iterable[Array]) -> onnx.ModelProto:
    """A graph without its roundings; its values keep their names.

    Args:
        model: a graph in any precision.
        known: the float32 weights that it was made of.

    Raises:
        CheckFailedError: a QuantizeLinear without a DequantizeLinear that is its inverse.
    """
    weights = _Weights(known)
    exact = {
        tensor.name: weights.exact(_Rounded.cast(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type in LOW_TYPES
    }
    form = widened(model)
    for tensor in form.graph.initializer:
        if tensor.name in exact:
            tensor.CopyFrom(numpy_helper.from_array(exact[tensor.name], tensor.name))
    _remove_pairs(form.graph, weights)
    return form


def _remove_pairs(graph: onnx.GraphProto, weights: _Weights) -> None:
    """Replace the QDQ pairs of activations by nothing, and quantized weights by exact ones."""
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    quantizers = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
    nodes = [node for node in graph.node if node.op_type != "QuantizeLinear"]
    del graph.node[:]
    for node in nodes:
        if node.op_type != "DequantizeLinear":
            graph.node.append(node)
            continue
        (source, *parameters), (output,) = node.input, node.output
        if source in constants:
            weight = weights.exact(_Rounded.quantized(node, constants))
            graph.initializer.append(numpy_helper.from_array(weight, output))
            continue
        before = quantizers.get(source)
        if before is None or not _same(list(before.input[1:]), parameters, constants):
            raise CheckFailedError(
                f"{output}: a DequantizeLinear that is not the inverse of the QuantizeLinear before"
            )
        graph.node.append(onnx.helper.make_node("Identity", before.input[:1], [output]))
    left = set(quantizers) & {name for node in graph.node for name in node.input}
    if left:
        raise CheckFailedError(f"{min(left)}: a QuantizeLinear without a DequantizeLinear")


def _same(
    names: Sequence[str], others: Sequence[str], constants: Mapping[str, NDArray[Any]]
) -> bool:
    """Whether scale and zero point, by their names, have the same values."""
    return len(names) == len(others) and all(
        a == b or np.array_equal(constants[a], constants[b])
        for a, b in zip(names, others, strict=True)
    )


@dataclass(frozen=True)
class _Rounded:
    """A rounded weight: its values, and in the same shape the distance to the next ones."""

    values: Array
    steps: Array

    @classmethod
    def cast(cls, tensor: onnx.TensorProto) -> _Rounded:
        low = LOW_TYPES[tensor.data_type]
        values = numpy_helper.to_array(tensor).astype(np.float32)
        steps = np.maximum(np.abs(values) * 2.0 ** (1 - low.digits), 2.0**low.min_subnormal_power)
        return cls(values, steps.astype(np.float32))

    @classmethod
    def quantized(cls, node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> _Rounded:
        """What a DequantizeLinear makes of a constant."""
        levels, *parameters = (constants[name].astype(np.float32) for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        along = [-1 if index == axis else 1 for index in range(levels.ndim)]
        steps, *zero = (p.reshape(along if p.ndim else ()) for p in parameters)
        values = (levels - (zero[0] if zero else np.float32(0))) * steps
        return cls(values, np.broadcast_to(steps, values.shape))

    def of(self, exact: Array) -> bool:
        """Whether they are the rounding of `exact`, of the same shape."""
        return bool((np.abs(exact - self.values) <= HALF_STEP * self.steps).all())

    def rows(self) -> Iterator[_Rounded]:
        """Its parts along the first axis, flattened."""
        return map(_Rounded, *(part.reshape(len(part), -1) for part in (self.values, self.steps)))

    def transposed(self) -> _Rounded:
        return _Rounded(self.values.T, self.steps.T)


class _Weights:
    """The float32 weights of a network, found by their roundings."""

    def __init__(self, tensors: Iterable[Array]) -> None:
        self.tensors = tuple(tensors)
        self.lengths: dict[int, Array] = {}
        self.by_size: dict[int, list[Array]] = defaultdict(list)
        for tensor in self.tensors:
            for part in _halves(tensor):
                self.by_size[part.size].append(part)

    def exact(self, rounded: _Rounded) -> Array:
        """The weight, times a power of two (see `precision.rescale`), of which these are the
        rounding, or the weights of which they are put together row by row; otherwise the values
        themselves."""
        shape = rounded.values.shape
        for own in self.by_size[rounded.values.size]:
            weight = own * _power_between(own, rounded.values)
            if rounded.of(weight.reshape(shape)):
                return weight.reshape(shape)
            # Of a product, x W^T.
            turned = weight.reshape(len(weight), -1).T.reshape(shape) if weight.ndim > 1 else weight
            if weight.ndim > 1 and rounded.of(turned):
                return turned
        if len(shape) > 1:
            rows = self._rows(rounded)
            if rows is not None:
                return np.stack(rows).reshape(shape)
        if len(shape) == 2:
            columns = self._rows(rounded.transposed())
            if columns is not None:
                return np.stack(columns, axis=1)
        return rounded.values

    def _rows(self, rounded: _Rounded) -> list[Array] | None:
        """The row of a weight, or the whole weight, for each row; None if there is one without."""
        found = []
        for row in rounded.rows():
            known = self._of_length(row.values.size)
            near = np.abs(known[:, 0] - row.values[0]) <= HALF_STEP * row.steps[0]
            exact = next((weight for weight in known[near] if row.of(weight)), None)
            if exact is None:
                return None
            found.append(exact)
        return found

    def _of_length(self, length: int) -> Array:
        """All rows, and all weights as rows, of a length."""
        if length not in self.lengths:
            rows = [
                w.reshape(-1, length) for w in self.tensors if w.ndim and len(w) * length == w.size
            ]
            rows += [w.reshape(1, length) for w in self.tensors if w.size == length]
            self.lengths[length] = (
                np.concatenate(rows) if rows else np.empty((0, length), np.float32)
            )
        return self.lengths[length]


def _power_between(weight: Array, values: Array) -> np.float32:
    """The power of two that brings a weight to the size of `values`."""
    largest, wanted = np.abs(weight).max(initial=0), np.abs(values).max(initial=0)
    if not (largest > 0 and wanted > 0 and np.isfinite(largest) and np.isfinite(wanted)):
        return np.float32(1)
    return np.float32(2.0 ** round(math.log2(wanted / largest)))


def _halves(tensor: Array) -> Iterator[Array]:
    """A weight, and its halves by output channel, which the graph pass `split_gates` makes."""
    yield tensor
    if tensor.ndim and len(tensor) % 2 == 0:
        yield from np.split(tensor, 2)
