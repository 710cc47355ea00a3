"""Files have the lowest IR version that their content needs, so that old runtimes load them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx.parser import parse_model

from deblur_export.export.engines.plugin_graph import plugin_form
from deblur_export.export.graph import inlined, message_of
from deblur_export.export.ir_version import ELEMENT_TYPES, ir_version
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.precision import GraphPrecision
from deblur_export.target import TARGETS, TargetName
from tests.conftest import Exported, usual_options

PLAIN = """
<ir_version: 10, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Relu(x) }
"""
FUNCTION = """
<ir_version: 10, opset_import: ["": 15, "own": 1]> g (float[2] x) => (float[2] y) { y = own.F(x) }
<domain: "own", opset_import: ["": 15]> F (x) => (y) { y = Relu(x) }
"""
# Those that every IR version has that we may write.
OLD_TYPES = set(onnx.TensorProto.DataType.keys()[: 1 + onnx.TensorProto.BFLOAT16])


def tensor(name: str) -> Callable[[onnx.ModelProto], object]:
    def add(model: onnx.ModelProto) -> None:
        kind = onnx.TensorProto.DataType.Value(name)
        model.graph.initializer.add(name="w", dims=[0], data_type=kind)

    return add


def opset(version: int) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        pytest.param(PLAIN, lambda m: None, 8, id="opset-18"),
        pytest.param(PLAIN, opset(11), 6, id="opset-11"),
        pytest.param(PLAIN, opset(19), 9, id="opset-19"),
        pytest.param(PLAIN, opset(22), 10, id="opset-22"),
        pytest.param(PLAIN, opset(23), 11, id="opset-23"),
        pytest.param(PLAIN, tensor("BFLOAT16"), 8, id="bfloat16"),
        pytest.param(PLAIN, tensor("FLOAT8E5M2"), 9, id="float8"),
        pytest.param(PLAIN, tensor("INT4"), 10, id="int4"),
        pytest.param(PLAIN, tensor("FLOAT4E2M1"), 11, id="float4"),
        pytest.param(
            PLAIN, lambda m: m.graph.node[0].metadata_props.add(key="a"), 10, id="metadata"
        ),
        pytest.param(FUNCTION, opset(11), 8, id="function"),
        pytest.param(
            FUNCTION,
            lambda m: m.functions[0].attribute_proto.add(name="a"),
            9,
            id="default-attribute",
        ),
        pytest.param(
            FUNCTION, lambda m: m.functions[0].value_info.add(name="x"), 10, id="function-types"
        ),
        pytest.param(
            FUNCTION, lambda m: setattr(m.functions[0], "overload", "b"), 10, id="overload"
        ),
        pytest.param(
            FUNCTION,
            lambda m: setattr(m.functions[0].opset_import[0], "version", 21),
            10,
            id="opset-of-function",
        ),
    ],
)
def test_rule(text: str, change: Callable[[onnx.ModelProto], object], expected: int) -> None:
    model = parse_model(text)
    change(model)
    assert ir_version(model) == expected


def test_every_element_type_of_onnx_has_a_rule() -> None:
    """Those of a newer onnx too."""
    assert not set(onnx.TensorProto.DataType.keys()) - OLD_TYPES - {*ELEMENT_TYPES}


def test_a_graph_of_any_version_becomes_a_message_of_the_lowest() -> None:
    assert message_of(ir.from_proto(parse_model(PLAIN))).ir_version == 8


EXPECTED = {"portable": 8, "ort": 10, "openvino": 8, "rtx": 8}  # opset 22 needs 10


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", ["nafnet", "m2aenet"])
def test_exported_files(exported: Exported, model: str, target: TargetName) -> None:
    proto = exported(model, options=usual_options(model, target)).proto
    assert proto.ir_version == EXPECTED[target]
    assert {i.version for f in proto.functions for i in f.opset_import} <= {TARGETS[target].opset}
    assert plugin_form(proto, [f.name for f in proto.functions]).ir_version == EXPECTED[target]
    assert inlined(proto).ir_version == EXPECTED[target]


@pytest.mark.parametrize(("precision", "expected"), [("fp16", 8), ("bf16", 10)])
def test_files_in_low_precision(
    exported: Exported, tmp_path: Path, precision: GraphPrecision, expected: int
) -> None:
    typed = typed_artifact(exported("m2aenet"), precision, tmp_path / "net.onnx")
    assert typed.proto.ir_version == expected
