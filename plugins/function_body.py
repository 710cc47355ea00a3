"""A small recorder for the standard-operator bodies of the custom ops (ONNX `FunctionProto`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

DOMAIN = "deblur"
VERSION = 1


class FunctionBody:
    """Records nodes by attribute access: ``b.Add(x, y)`` adds an Add node and returns its output.

    Keyword arguments are node attributes; an `ir.Attr` made by `reference` refers to an attribute
    of the function itself (ONNX IR spec, "Functions": attribute references).
    """

    def __init__(
        self, inputs: Sequence[str], attributes: Sequence[str], opset: int, prefix: str = "v"
    ) -> None:
        self.inputs = [ir.Value(name=name) for name in inputs]
        self.opset = opset
        self._attributes = tuple(attributes)
        self._tape = Tape()
        self._prefix = prefix
        self._numbers = itertools.count()
        self._constants: dict[tuple[object, ...], ir.Value] = {}

    def __getattr__(self, op_type: str) -> Any:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def record(*inputs: ir.Value | None, num_outputs: int = 1, **attributes: Any) -> Any:
            if op_type == "Split":  # opset 18 wants the count as an attribute as well
                attributes["num_outputs"] = num_outputs
            outputs = self._tape.op_multi_out(op_type, inputs, attributes, num_outputs=num_outputs)
            for value in outputs:
                value.name = f"{self._prefix}{next(self._numbers)}"
            return outputs if num_outputs > 1 else outputs[0]

        return record

    def reference(self, name: str, attribute: str | None = None) -> ir.Attr:
        """The function's own integer attribute `name`, for a node's attribute (same name)."""
        return ir.RefAttr(attribute or name, name, ir.AttributeType.INT)

    def ints(self, *values: int) -> ir.Value:
        """A constant int64 vector."""
        return self._constant(np.asarray(values, np.int64))

    def scalar(self, value: int) -> ir.Value:
        """A constant int64 scalar."""
        return self._constant(np.asarray(value, np.int64))

    def floats(self, values: Any) -> ir.Value:
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
        return self.Shape(x, start=axis, end=axis + 1)  # type: ignore[no-any-return]

    def branch(self, name: str, inputs: Sequence[str] = ()) -> FunctionBody:
        """A recorder for the body of an If or Scan node; it may use this body's values.

        `inputs` are those of a Scan body: the carried states, then one slice a scanned input.
        """
        return FunctionBody([f"{name}_{i}" for i in inputs], (), self.opset, prefix=f"{name}_")

    def graph(self, *outputs: ir.Value) -> ir.Graph:
        """The recorded nodes as the graph of an If branch or a Scan body.

        The outputs of a Scan body are the new states, then one slice a stacked output; each is a
        value of its own that a node of this body made.
        """
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
