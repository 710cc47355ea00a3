"""`export.graph`: copies share nothing with the model that they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from deblur_export.artifact import ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import graph_of, inlined, inner_values, message_of, with_outputs

TEXT = """
<ir_version: 10, opset_import: ["": 18, "own": 1]>
net (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
    a = Add(x, w)
    b = own.Twice(a)
    y = Relu(b)
}
<domain: "own", opset_import: ["": 18]>
Twice (v) => (d) { d = Add(v, v) }
"""


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    onnx.save(onnx.parser.parse_model(TEXT), tmp_path / "net.onnx")
    return ModelFile(tmp_path / "net.onnx")


def test_a_graph_can_be_changed_without_the_file(file: ModelFile) -> None:
    before = file.proto.SerializeToString(deterministic=True)
    for source in (file, file.proto):
        graph = graph_of(source)
        (weight,) = graph.graph.initializers.values()
        weight.name = "renamed"
        assert weight.const_value is not None
        weight.const_value.name = "renamed"
        graph.graph[0].name = "first"
        graph.metadata_props["deblur_export"] = "{}"
        assert message_of(graph).graph.initializer[0].name == "renamed"
    assert file.proto.SerializeToString(deterministic=True) == before
    assert file.proto is file.proto, "parsed once"


def test_inner_values_as_outputs(file: ModelFile) -> None:
    before = file.proto.SerializeToString(deterministic=True)
    assert inner_values(file.proto) == ["a", "b", "y"]
    feed = {"x": np.array([1, -5], np.float32)}
    for instead, expected in ((False, ["y", "a"]), (True, ["a"])):
        model = with_outputs(file.proto, ("a",), instead)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        assert [output.name for output in session.get_outputs()] == expected
        assert session.run(["a"], feed)[0].tolist() == [2, -3]
    whole = inlined(file.proto)
    assert not whole.functions and {node.op_type for node in whole.graph.node} == {"Add", "Relu"}
    assert file.proto.SerializeToString(deterministic=True) == before


def test_what_is_no_onnx_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\xff\xff\xff")
    for path in (tmp_path / "a.onnx", tmp_path / "gone.onnx"):
        with pytest.raises(DeblurExportError, match="not an ONNX file, or a damaged one"):
            graph_of(ModelFile(path))
