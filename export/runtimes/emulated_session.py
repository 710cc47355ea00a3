"""Emulates a typed graph in float32 arithmetic that rounds where the typed graph does.

ONNX Runtime has hardly any bfloat16 kernels on the CPU. Its float16 graphs run, but between two
nodes without a float16 kernel it keeps float32 values and omits the rounding, on some processors
and not on others. Here every node computes in float32, and every value that the typed graph stores
in the low precision goes through a pair of Cast nodes, which ONNX Runtime does not remove. The
result is the same on every machine, and it is what a GPU computes that stores values in the low
precision and accumulates in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from deblur_export import precision
from deblur_export.artifact import ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import inlined
from deblur_export.export.runtimes.onnxruntime_release import cannot_load
from deblur_export.export.runtimes.ort_options import session_options
from deblur_export.export.runtimes.session import Arrays
from deblur_export.onnx_reading import first_line

LOW = tuple(TensorProto.DataType.Value(low.onnx) for low in precision.LOW.values())
# Ops that only move values, which are already rounded.
MOVES = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Gather", "Identity", "Pad", "Reshape", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where", "Constant"}
)


class Float32Session:
    """Runs a float32 graph that was made from a file on ONNX Runtime; a `runtimes.Session`.

    Args:
        model: the graph; the outputs are added to it.
        how: what is done with the file, for the title.
        path: of the file, for messages.
        extra_outputs: values of the graph to return as well.

    Raises:
        DeblurExportError: ONNX Runtime cannot load it.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self, model: onnx.ModelProto, how: str, path: Path, extra_outputs: tuple[str, ...] = ()
    ) -> None:
        self.title = f"ONNX Runtime {onnxruntime.__version__} CPU, {how}"
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra_outputs)
        try:
            self.session = float32_session(model)
        except Exception as error:  # the bindings raise several unrelated types
            raise cannot_load(path, model, error) from error
        self.outputs = [output.name for output in self.session.get_outputs()]

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        """Compute the float32 outputs by name from the inputs by name.

        Raises:
            DeblurExportError: ONNX Runtime failed, for lack of memory for instance.
        """
        try:
            values = self.session.run(self.outputs, dict(feed))
        except Exception as error:  # as above
            raise DeblurExportError(
                f"ONNX Runtime failed, perhaps for lack of memory: {first_line(error)}"
            ) from error
        return dict(zip(self.outputs, map(np.asarray, values), strict=True))


class EmulatedSession(Float32Session):
    """Runs the emulation of a file on ONNX Runtime; a `runtimes.Session`."""

    def __init__(
        self, file: ModelFile, precision: str, extra_outputs: tuple[str, ...] = ()
    ) -> None:
        super().__init__(emulated(file.proto), f"{precision} emulated", file.path, extra_outputs)
        self.notes = (
            f"ONNX Runtime computes in float32 here and rounds to {precision} where the file does",
        )


def float32_session(model: onnx.ModelProto) -> Any:
    """A session of ONNX Runtime on the CPU that loads quickly."""
    options = session_options()
    # With thousands of Casts of unknown shape, planning the reuse of buffers takes longer than
    # running them.
    options.enable_mem_reuse = False
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 copy of a typed graph with Casts that round; the values keep their names.

    The function bodies of custom ops are inlined. Inside their loops and branches nothing is
    rounded, only the values that leave them.
    """
    return _in_float32(model, rounding=True)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 copy of a typed graph that rounds nothing; as `emulated`."""
    return _in_float32(model, rounding=False)


def _in_float32(model: onnx.ModelProto, rounding: bool) -> onnx.ModelProto:
    model = inlined(model)
    types = element_types(model)
    graph = model.graph
    for tensor in graph.initializer:
        _widen(tensor)
    nodes = list(graph.node)
    del graph.node[:]
    for info in graph.input if rounding else ():
        graph.node.extend(_rounded_input(info, nodes))
    for node in nodes:
        low = [(i, types[name]) for i, name in enumerate(node.output) if types.get(name) in LOW]
        _retype(node)
        rounded = rounding and node.op_type not in MOVES
        casts = [_rounding(node, *value) for value in low] if rounded else []
        graph.node.append(node)
        graph.node.extend(itertools.chain(*casts))
    del graph.value_info[:]
    for info in (*graph.input, *graph.output):
        _declare(info)
    return model


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The ONNX element type (`TensorProto.DataType`) of every value of the main graph by name.

    Raises:
        onnx.shape_inference.InferenceError: the graph is not strongly typed.
    """
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    infos = (*inferred.input, *inferred.value_info, *inferred.output)
    return types | {info.name: info.type.tensor_type.elem_type for info in infos}


def _rounded_input(
    info: onnx.ValueInfoProto, nodes: Iterable[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """Round an input of low precision once, before all nodes that read it."""
    kind, name = info.type.tensor_type.elem_type, info.name
    if kind not in LOW:
        return []
    for node in nodes:
        node.input[:] = [f"{name}/in" if read == name else read for read in node.input]
    return _casts(name, f"{name}/in", kind)


def _rounding(node: onnx.NodeProto, index: int, kind: int) -> list[onnx.NodeProto]:
    """Rename one output of a node and round it under its old name."""
    name = node.output[index]
    node.output[index] = f"{name}/exact"
    return _casts(f"{name}/exact", name, kind)


def _casts(exact: str, rounded: str, kind: int) -> list[onnx.NodeProto]:
    """Two Casts: to the ONNX element type `kind` and back to float32."""
    low = f"{rounded}/low"
    make = onnx.helper.make_node
    return [
        make("Cast", [exact], [low], to=kind),
        make("Cast", [low], [rounded], to=TensorProto.FLOAT),
    ]


def _retype(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i in LOW:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            _widen(attribute.t)
        for graph in (attribute.g, *attribute.graphs):
            for info in (*graph.input, *graph.output, *graph.value_info):
                _declare(info)
            for inner in graph.node:
                _retype(inner)


def _declare(info: onnx.ValueInfoProto) -> None:
    if info.type.tensor_type.elem_type in LOW:
        info.type.tensor_type.elem_type = TensorProto.FLOAT


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in LOW:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
