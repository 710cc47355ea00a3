"""A small recorder for the standard-operator bodies of the custom ops (ONNX `FunctionProto`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike
from onnx_ir.tape import Tape

from deblur_export.onnx_reading import DOMAIN as DOMAIN

VERSION = 1

AttributeValue = int | float | str | Sequence[int] | ir.Attr | ir.Graph | ir.TensorProtocol


class Operator(Protocol):
    """Adds a node of one operator, which has one output, and returns that output."""

    def __call__(self, *inputs: ir.Value | None, **attributes: AttributeValue) -> ir.Value: ...


class FunctionBody:
    """Records nodes by attribute access: ``b.Add(x, y)`` adds an Add node and returns its output.

    Keyword arguments are node attributes; an `ir.Attr` made by `reference` refers to an attribute
    of the function itself (ONNX IR spec, "Functions": attribute references). `outputs` and `split`
    add a node of several outputs.

    Args:
        inputs: names of the inputs of the function.
        attributes: names of its attributes, all of them integers.
        opset: version of the standard operators.
        prefix: the names of the recorded values begin with it.
    """

    def __init__(
        self, inputs: Iterable[str], attributes: Iterable[str], opset: int, prefix: str = "v"
    ) -> None:
        self.inputs = [ir.Value(name=name) for name in inputs]
        self.opset = opset
        self._attributes = tuple(attributes)
        self._tape = Tape()
        self._prefix = prefix
        self._numbers = itertools.count()
        self._constants: dict[tuple[object, ...], ir.Value] = {}

    def __getattr__(self, op_type: str) -> Operator:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def record(*inputs: ir.Value | None, **attributes: AttributeValue) -> ir.Value:
            return self.outputs(op_type, 1, *inputs, **attributes)[0]

        return record

    def outputs(
        self, op_type: str, count: int, *inputs: ir.Value | None, **attributes: AttributeValue
    ) -> Sequence[ir.Value]:
        """Add a node with `count` outputs and return them."""
        values = self._tape.op_multi_out(op_type, inputs, attributes, num_outputs=count)
        for value in values:
            value.name = f"{self._prefix}{next(self._numbers)}"
        return values

    def split(self, x: ir.Value, count: int, axis: int) -> Sequence[ir.Value]:
        """x in `count` equal parts along one axis."""
        return self.outputs("Split", count, x, axis=axis, num_outputs=count)

    def reference(self, name: str, attribute: str | None = None) -> ir.Attr:
        """The function's own integer attribute `name`, for a node's attribute (same name)."""
        return ir.RefAttr(attribute or name, name, ir.AttributeType.INT)

    def ints(self, *values: int) -> ir.Value:
        """A constant int64 vector."""
        return self._constant(np.asarray(values, np.int64))

    def scalar(self, value: int) -> ir.Value:
        """A constant int64 scalar."""
        return self._constant(np.asarray(value, np.int64))

    def floats(self, values: ArrayLike) -> ir.Value:
        """A constant float32 tensor of the given nested values."""
        return self._constant(np.asarray(values, np.float32))

    def _constant(self, array: np.ndarray) -> ir.Value:
        """Equal constants are one node."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.Constant(value=ir.tensor(array))
        return self._constants[key]

    def size(self, x: ir.Value, axis: int) -> ir.Value:
        """The extent of one axis of x as an int64 vector of one element."""
        return self.Shape(x, start=axis, end=axis + 1)

    def branch(self, name: str, inputs: Iterable[str] = ()) -> FunctionBody:
        """A recorder for the body of an If or Scan node; it may use this body's values.

        `inputs` are those of a Scan body: the carried states, then one slice a scanned input.
        """
        return FunctionBody([f"{name}_{i}" for i in inputs], (), self.opset, prefix=f"{name}_")

    def graph(self, *outputs: ir.Value, rank: int | None = None) -> ir.Graph:
        """The recorded nodes as the graph of an If branch or a Scan body.

        The outputs of a Scan body are the new states, then one slice a stacked output; each is a
        value of its own that a node of this body made. `rank` declares them float32 of that many
        dimensions: before 1.17 ONNX Runtime runs no Scan whose outputs have an unknown rank, and
        does not infer it where the shapes of the states are computed.
        """
        if rank is not None:
            for value in outputs:
                value.shape = ir.Shape([None] * rank)
                value.type = ir.TensorType(ir.DataType.FLOAT)
        return ir.Graph(self.inputs, outputs, nodes=self.nodes, name=self._prefix.rstrip("_"))

    @property
    def nodes(self) -> Sequence[ir.Node]:
        return self._tape.nodes

    def function(self, name: str, outputs: Sequence[tuple[str, ir.Value]], doc: str) -> ir.Function:
        """The recorded nodes as a function of domain `deblur`."""
        for output_name, value in outputs:
            value.name = output_name
        graph = ir.Graph(
            self.inputs,
            [value for _, value in outputs],
            nodes=self.nodes,
            opset_imports={"": self.opset},
            doc_string=doc,
            name=name,
        )
        attributes = [ir.Attr(a, ir.AttributeType.INT, None) for a in self._attributes]
        return ir.Function(DOMAIN, name, "", graph=graph, attributes=attributes)
