"""Divide the residual streams that exceed float16 by a power of two, without changing the output.

A residual stream is what sums and data movement connect: all of its tensors are divided by the same
2**k. What enters and leaves it follows:

- a convolution or product by constants divides or multiplies its weights and biases;
- LayerNormalization gets epsilon * 2**-2k, and its output is what it was: with x / 2**k, mean and
  deviation are those of x divided by 2**k, and the variance by 2**2k;
- before and after any other operator stands a multiplication by the power of two.

Multiplication by a power of two is exact in floating point and commutes with every rounding, as
long as no number becomes subnormal or infinite. The float32 graph therefore computes the same bits
as before; `rescaled` runs both and compares them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from deblur_export.errors import CheckFailedError
from deblur_export.export.graph import message_of
from deblur_export.export.images.cases import Case
from deblur_export.export.precision.cast import constant_array
from deblur_export.export.precision.policy import LINEAR, is_constant
from deblur_export.export.precision.ranges import HEADROOM
from deblur_export.export.runtimes.emulated_session import float32_session
from deblur_export.export.to_onnx import lower
from deblur_export.manifest_blocks import PassReport
from deblur_export.precision import WIDE
from deblur_export.target import TargetName

# Headroom, in powers of two, that a stream gets where it has less than `HEADROOM`.
REST = 4.0
# Largest power: 2**-2k of an epsilon is a normal number of float32.
LARGEST = 40
# Names of values before the division and after the multiplication.
UNSCALED, EXACT = "/unscaled", "/exact"
PASS = "rescale_by_2^-"  # begins the name of the pass in the manifest
TOLERANCE = 1e-6  # numbers may become subnormal
# Outputs scale with the floating-point input, which is the first; of those below with all of them.
MOVES = frozenset(
    {"DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
    | {"AveragePool", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Neg", "ReduceMean", "Relu"}
)
SUMS = frozenset({"Add", "Concat", "Sub"})


def powers(graph: ir.Graph, headrooms: Mapping[str, float]) -> dict[ir.Value, int]:
    """By which powers of two to divide: k for each value of a residual stream of which one has less
    than `HEADROOM` powers of two below the largest float16.

    Args:
        graph: the main graph.
        headrooms: by name, of all values that were observed; see `ranges.TensorRange.headroom`.
    """
    streams = _Streams()
    fixed = [*graph.inputs, *graph.outputs]
    for node in graph:
        data = _joined(node)
        for value in data:
            streams.join(data[0], value)
        fixed += [v for v in node.outputs if any(u.graph is not graph for u, _ in v.uses())]
    pinned = {streams.find(value) for value in fixed}
    least: dict[ir.Value, float] = {}
    for node in graph:
        for value in node.outputs:
            stream, headroom = streams.find(value), headrooms.get(str(value.name), math.inf)
            least[stream] = min(least.get(stream, math.inf), headroom)
    chosen = {
        stream: min(math.ceil(REST - headroom), LARGEST)
        for stream, headroom in least.items()
        if -math.inf < headroom < HEADROOM and stream not in pinned
    }
    return {
        value: chosen[streams.find(value)]
        for node in graph
        for value in node.outputs
        if streams.find(value) in chosen
    }


@dataclass(frozen=True)
class Rescaled:
    """A rescaled graph.

    Attributes:
        graph: in the form of its target.
        powers: k by the name of each value that was divided by 2**k.
        error: largest difference of the output to that of the graph before, relative to its largest
            value.
    """

    graph: ir.Model
    powers: Mapping[str, int]
    error: float

    def headrooms(self, before: Mapping[str, float]) -> dict[str, float]:
        """Those of the rescaled graph."""
        after = {name: headroom + self.powers.get(name, 0) for name, headroom in before.items()}
        for name in set(self.powers) & set(before):
            after[f"{name}{UNSCALED}"] = after[f"{name}{EXACT}"] = before[name]
        return after


def rescaled(
    traced: ir.Model, target: TargetName, headrooms: Mapping[str, float], case: Case
) -> Rescaled:
    """Rescale a traced graph, bring it into the form of its target, and compare it with the one
    that is not rescaled.

    Args:
        traced: from `to_onnx.trace`; not changed.
        target: for which the graph is made.
        headrooms: as in `powers`.
        case: the image to compare on.

    Raises:
        CheckFailedError: the output changed.
    """
    model = traced.clone()
    chosen = powers(model.graph, headrooms)
    names = {str(value.name): power for value, power in chosen.items()}
    rescale(model, chosen)
    graph = lower(model, target)
    expected, found = (
        float32_session(message_of(each)).run(["restored"], {"image": case.image})[0]
        for each in (lower(traced, target), graph)
    )
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise CheckFailedError(
            f"rescaling changed the output by {error:.1e} of its range (tolerance "
            f"{TOLERANCE:.0e}): some values are too small or too large for float32; use "
            f"--precision {' or '.join(WIDE)}"
        )
    return Rescaled(graph, names, error)


def reports(rescaled: Rescaled, last: PassReport | None) -> list[PassReport]:
    """What the manifest says: a report for each power. Parameters and multiply-adds, those of the
    `last` pass, do not change."""
    size = (0, 0, 0, 0)
    if last is not None:
        parameters, macs = last.parameters_after, last.macs_after
        size = (parameters, parameters, macs, macs)
    return [
        PassReport(
            f"{PASS}{power}",
            tuple(name for name, own in rescaled.powers.items() if own == power),
            (),
            *size,
            rescaled.error,
        )
        for power in sorted(set(rescaled.powers.values()))
    ]


def recorded_powers(passes: Iterable[PassReport]) -> dict[str, int]:
    """The powers by name, from the reports in a manifest."""
    return {
        name: int(report.name.removeprefix(PASS))
        for report in passes
        if report.name.startswith(PASS)
        for name in report.changed
    }


def rescale(model: ir.Model, chosen: Mapping[ir.Value, int]) -> None:
    """Divide each value by 2 to its power, in place; the output of the model does not change."""
    _Rescaler(model.graph, dict(chosen)).run()


def _joined(node: ir.Node) -> list[ir.Value]:
    """The values of a node that have the same power: none if it is no part of a stream."""
    if node.domain or not node.outputs:
        return []
    inputs = [value for value in node.inputs if value is not None]
    if node.op_type in SUMS:
        data = [value for value in inputs if not is_constant(value)]
    elif node.op_type in MOVES:
        data = inputs[:1]
    elif node.op_type == "Mul" and sum(map(is_constant, inputs)) == 1:
        data = [value for value in inputs if not is_constant(value)]
    elif node.op_type == "Div" and is_constant(inputs[1]):
        data = inputs[:1]
    else:
        return []
    return [*data, *node.outputs]


def _by_constants(node: ir.Node) -> bool:
    """Whether weights and biases of a convolution or product are constants."""
    return all(value is None or is_constant(value) for value in node.inputs[1:])


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


class _Streams:
    """Disjoint sets of values."""

    def __init__(self) -> None:
        self.parent: dict[ir.Value, ir.Value] = {}

    def find(self, value: ir.Value) -> ir.Value:
        while (above := self.parent.get(value, value)) is not value:
            self.parent[value] = self.parent.get(above, above)
            value = above
        return value

    def join(self, a: ir.Value, b: ir.Value) -> None:
        self.parent[self.find(a)] = self.find(b)


@dataclass
class _Rescaler:
    graph: ir.Graph
    powers: dict[ir.Value, int]
    undone: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def run(self) -> None:
        for node in list(self.graph):
            before = [self._power(value) for value in node.inputs]
            after = [self._power(value) for value in node.outputs]
            if not any((*before, *after)):
                continue
            if _joined(node):
                self._sum(node, after[0])
            elif node.op_type in LINEAR and not node.domain and _by_constants(node):
                self._linear(node, before[0], after[0])
            elif node.op_type == "LayerNormalization" and not any(after):
                self._normalization(node, before[0])
            else:
                self._other(node, before, after)

    def _power(self, value: ir.Value | None) -> int:
        return 0 if value is None else self.powers.get(value, 0)

    def _sum(self, node: ir.Node, power: int) -> None:
        """Constants of a sum are divided as well; factors and the shapes of moves are not."""
        if node.op_type in SUMS or node.op_type == "Pad":
            for index, value in enumerate(node.inputs):
                if value is None or not is_constant(value):
                    continue
                if constant_array(value).dtype == np.float32:
                    self._scale(node, index, -power)

    def _linear(self, node: ir.Node, before: int, after: int) -> None:
        self._scale(node, 1, before - after)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            self._scale(node, 2, -after)

    def _normalization(self, node: ir.Node, before: int) -> None:
        epsilon = node.attributes.get_float("epsilon", 1e-5) * 2.0 ** (-2 * before)
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)

    def _other(self, node: ir.Node, before: list[int], after: list[int]) -> None:
        for index, (value, power) in enumerate(zip(node.inputs, before, strict=True)):
            if value is not None and power:
                node.replace_input_with(index, self._undo(value, power, node))
        for value, power in zip(node.outputs, after, strict=True):
            if power:
                name = str(value.name)
                value.name = f"{name}{UNSCALED}"
                scaled = self._times(value, -power, name)
                scaled.type, scaled.shape = value.type, value.shape
                users = [(user, at) for user, at in value.uses() if user is not scaled.producer()]
                for user, at in users:
                    user.replace_input_with(at, scaled)
                self.graph.insert_after(node, _producer(scaled))
                self.powers[scaled] = self.powers.pop(value)

    def _undo(self, value: ir.Value, power: int, user: ir.Node) -> ir.Value:
        if value not in self.undone:
            exact = self._times(value, power, f"{value.name}{EXACT}")
            exact.type, exact.shape = value.type, value.shape
            self.graph.insert_before(user, _producer(exact))
            self.undone[value] = exact
        return self.undone[value]

    def _times(self, value: ir.Value, power: int, name: str) -> ir.Value:
        factor = self._initializer(f"{name}/power", np.array(2.0**power))
        node = ir.Node("", "Mul", [value, factor], name=f"{name}/times_a_power_of_two")
        node.outputs[0].name = name
        return node.outputs[0]

    def _scale(self, node: ir.Node, index: int, power: int) -> None:
        """Multiply a constant input by 2 to a power; other users keep theirs."""
        value = node.inputs[index]
        if value is None or power == 0:
            return
        with np.errstate(over="ignore"):  # the comparison of both graphs shows it
            exact = np.asarray(constant_array(value) * np.float32(2.0**power), np.float32)
        if value.is_initializer() and len(value.uses()) == 1:
            value.const_value = ir.tensor(exact, name=value.name)
        else:
            name = f"{value.name}/times_2^{power} of {node.name}"
            node.replace_input_with(index, self._initializer(name, exact))

    def _initializer(self, name: str, values: np.ndarray) -> ir.Value:
        array = np.asarray(values, np.float32)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=ir.tensor(array, name=name),
        )
        self.graph.initializers[name] = value
        return value
