"""Reads an ONNX file that another exporter wrote, and brings its graph into a form in which all
that works on our own files works on it.

In that form all nodes have names, weights are initializers, also those that are computed of others,
functions are inlined, numbers in float16 are float32 numbers of the same values, and the opset is
that of our files where ONNX's converters manage it. Values keep their names.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.version_converter import convert_version

from deblur_export.artifact import ENGINE_SUFFIXES, METADATA_KEY, ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import copied, graph_of, inlined, message_of
from deblur_export.export.passes.forget_dynamic_shapes import forget_dynamic_shapes
from deblur_export.export.passes.strip_metadata import strip_metadata
from deblur_export.export.runtimes.emulated_session import LOW, widened
from deblur_export.file_names import is_file
from deblur_export.onnx_reading import first_line
from deblur_export.shown import shown
from deblur_export.target import TARGETS, TargetName

LEAST_OPSET = 7  # the oldest that ONNX Runtime runs
ANY = 2**40  # bytes
OWN_OPSET = 15  # the oldest in which padding can be added: Shape has a start and an end
STANDARD = ("", "ai.onnx")
RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"}
    | {"Multinomial", "Bernoulli"}
)
QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"}
    | {"QLinearMatMul", "ConvInteger", "MatMulInteger"}
)


@dataclass(frozen=True)
class Source(ModelFile):
    """An ONNX file of another exporter."""

    @cached_property
    def float32(self) -> onnx.ModelProto:
        """Its graph in float32: numbers in float16 are float32 numbers of the same values.

        Raises:
            DeblurExportError: a value has no type.
        """
        if not has_half(self.proto):
            return self.proto
        try:
            return widened(self.proto)
        except Exception as error:  # of ONNX's shape inference, of several types
            raise DeblurExportError(
                f"{self.path}: its float16 graph has values of unknown type and cannot be read as "
                f"float32 ({first_line(error)}); adopt the float32 file that it was made of"
            ) from error

    @property
    def opset(self) -> int:
        """Of the standard operators."""
        return max(int(e.version) for e in self.proto.opset_import if e.domain in STANDARD)

    @property
    def domains(self) -> dict[str, tuple[str, ...]]:
        """Operators that are not ONNX's and have no function in the file, by their domain."""
        own = {(f.domain, f.name) for f in self.proto.functions}
        found: dict[str, set[str]] = {}
        for node in _nodes(self.proto):
            if node.domain not in STANDARD and (node.domain, node.op_type) not in own:
                found.setdefault(node.domain, set()).add(node.op_type)
        return {domain: tuple(sorted(found[domain])) for domain in sorted(found)}


def read_source(path: Path) -> Source:
    """Read a file and check what can be seen without running it.

    Raises:
        DeblurExportError: it is missing, not ONNX, damaged, one of our own files, quantized, in
            training form, draws random numbers, or of an opset that is too old; the message says
            what to do.
    """
    if not is_file(path):
        raise DeblurExportError(f"{path}: no such file; give an ONNX file")
    if path.suffix.lower() in ENGINE_SUFFIXES:
        raise DeblurExportError(f"{path}: an engine; give the ONNX file that it was built from")
    source = Source(path)
    model = source.proto
    if any(entry.key == METADATA_KEY for entry in model.metadata_props):
        raise DeblurExportError(
            f"{path}: written by deblur-export already; use it directly, as in deblur-export "
            f"verify {path}"
        )
    if not any(entry.domain in STANDARD for entry in model.opset_import):
        raise DeblurExportError(f"{path}: it uses no operator of ONNX's own; export it again")
    if source.opset < LEAST_OPSET:
        raise DeblurExportError(
            f"{path}: opset {source.opset}; ONNX Runtime runs opset {LEAST_OPSET} and newer: "
            "export it again with a newer opset"
        )
    for node in _nodes(model):
        if reason := _refusal(node, model, source.opset):
            name = shown(node.name or (node.output[0] if node.output else ""))
            raise DeblurExportError(f"{path}: {node.op_type} {name} {reason}")
    return source


def normalized(
    source: Source, target: TargetName, convert: bool = True
) -> tuple[ir.Model, tuple[str, ...]]:
    """The graph of a file in the form that our own files have, and what could not be done.

    Raises:
        DeblurExportError: its operators are too old for our own and cannot be converted.
    """
    notes: list[str] = []
    proto = _inlined(source)
    converted = _converted(proto, TARGETS[target].opset) if convert else None
    if converted is None:
        if source.opset < OWN_OPSET:
            raise DeblurExportError(
                f"{source.path}: opset {source.opset} cannot be converted to "
                f"{TARGETS[target].opset} by ONNX's converter; export it again with opset "
                f"{TARGETS[target].opset}"
            )
        if convert:
            notes.append(
                f"stays in opset {source.opset}: ONNX's converters do not bring it to "
                f"{TARGETS[target].opset}"
            )
        converted = proto
    model = graph_of(converted)
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    fold_constants(model, onnx_shape_inference=False, input_size_limit=ANY, output_size_limit=ANY)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    _name_nodes(model)
    common.NameFixPass()(model)
    strip_metadata(model)
    forget_dynamic_shapes(model)
    return model, tuple(notes)


def _name_nodes(model: ir.Model) -> None:
    """Name nodes without a name after what they compute: "conv1_out/Conv"."""
    for node in model.graph:
        if not node.name:
            first = next((value.name for value in node.outputs if value.name), "")
            node.name = f"{first}/{node.op_type}" if first else None


def has_half(model: onnx.ModelProto) -> bool:
    """Whether a graph has numbers in a type of less precision than float32."""
    if any(tensor.data_type in LOW for tensor in model.graph.initializer):
        return True
    ends = (*model.graph.input, *model.graph.output)
    if any(value.type.tensor_type.elem_type in LOW for value in ends):
        return True
    return any(
        (attribute.name == "to" and attribute.i in LOW) or attribute.t.data_type in LOW
        for node in _nodes(model)
        for attribute in node.attribute
    )


def _inlined(source: Source) -> onnx.ModelProto:
    """In float32, without functions, and the standard domain by its one name."""
    proto = inlined(source.float32)
    for entry in proto.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    for node in _nodes(proto):
        if node.domain == "ai.onnx":
            node.domain = ""
    return proto


def _converted(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """A model in another opset, or None if the converters do not manage it."""
    own = next(entry.version for entry in proto.opset_import if not entry.domain)
    if own == opset:
        return proto
    foreign = any(node.domain for node in _nodes(proto))
    if own > opset or foreign:
        return None
    converted = None
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        converted = onnx.version_converter.convert_version(copied(proto), opset)
    if converted is None and own >= 18:
        with contextlib.suppress(Exception):
            model = graph_of(proto)
            convert_version(model, opset)
            converted = message_of(model)
    return converted


def _refusal(node: onnx.NodeProto, model: onnx.ModelProto, opset: int) -> str:
    if node.domain not in STANDARD:
        return ""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in QUANTIZED:
        return (
            "quantizes: a quantized file cannot be judged without its roundings; adopt the "
            "float32 file that it was made of, with --precision int8"
        )
    if node.op_type in RANDOM:
        return "draws random numbers, so that no two runs are equal; export without it"
    training = "training_mode" in attributes and attributes["training_mode"].i == 1
    old = opset < 14 and sum(map(bool, node.output)) > 1
    if node.op_type == "BatchNormalization" and (training or old):
        return (
            "is in training form, and normalizes by the image at hand; export the network in eval "
            "mode (net.eval())"
        )
    if node.op_type == "Dropout" and _is_training(node, model):
        return "is in training form, and drops values; export the network in eval mode (net.eval())"
    return ""


def _is_training(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether the input `training_mode` of a Dropout is the constant True."""
    if len(node.input) < 3 or not node.input[2]:
        return False
    constants = {t.name: t for t in model.graph.initializer}
    for maker in model.graph.node:
        if maker.op_type == "Constant" and maker.attribute and maker.attribute[0].name == "value":
            constants[maker.output[0]] = maker.attribute[0].t
    tensor = constants.get(node.input[2])
    return tensor is not None and bool(np.any(numpy_helper.to_array(tensor)))


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of functions and of the branches of If and Loop too."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs
