"""The graph of a file in low precision without its roundings is that of the float32 file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.calibration.qdq import (
    LAYOUTS,
    Layout,
    QuantizationParameters,
    find_quantizable,
    quantized,
    quantized_tensors,
    quantized_weight,
)
from deblur_export.engine_record import Census, EngineCheck, EngineRecord, OtherFile
from deblur_export.errors import CheckFailedError
from deblur_export.export.engines.options import BuildOptions
from deblur_export.export.images.cases import random_cases
from deblur_export.export.parity.float32_form import _Rounded, _Weights, float32_form
from deblur_export.export.parity.graph_check import GraphCheck, graph_file, note_on_graph
from deblur_export.export.parity.report import CaseResult
from deblur_export.export.parity.verify import as_reference, reference_model
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.precision import GraphPrecision
from tests.conftest import Exported

SHAPE = (1, 3, 32, 32)
PASSED = CaseResult("random", SHAPE, 0.0, 0.0, 90.0, 90.0, 1.0, None, None, passed=True)
WRONG = {"ending.bias": 5e-4, "encoders.1.0.conv5.weight": 1e-2}


def judged(artifact: Artifact, file: Path) -> CaseResult:
    reference = as_reference(artifact, reference_model(artifact))
    check = GraphCheck(ModelFile(file), reference, ())
    return check.judged(random_cases(SHAPE)[0], PASSED)


def with_wrong_weight(artifact: Artifact, name: str, folder: Path) -> Artifact:
    model = onnx.load(artifact.path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    wrong = (numpy_helper.to_array(tensor) + WRONG[name]).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(wrong, name))
    onnx.save(model, folder / "wrong.onnx")
    return Artifact(folder / "wrong.onnx", artifact.manifest)


def in_int8(artifact: Artifact, layout: Layout, path: Path) -> Path:
    """Every convolution and product quantized, with steps that are much too large."""
    nodes = find_quantizable(artifact.proto)
    coarse = dict.fromkeys(
        quantized_tensors(artifact.proto, nodes), QuantizationParameters(0.25, 0)
    )
    onnx.save(quantized(artifact.proto, nodes, coarse, layout), path)
    return path


@pytest.fixture
def original(exported: Exported) -> Artifact:
    return exported("nafnet", options=ExportOptions(shape=SHAPE))


@pytest.mark.parametrize("wrong", [None, *WRONG])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_typed_file(
    original: Artifact, tmp_path: Path, precision: GraphPrecision, wrong: str | None
) -> None:
    source = original if wrong is None else with_wrong_weight(original, wrong, tmp_path)
    typed = typed_artifact(source, precision, tmp_path / "typed.onnx")
    result = judged(original, typed.path)
    assert result.passed == (wrong is None), result.reason
    assert result.without_rounding is not None
    assert result.without_rounding < 1e-6 or wrong is not None


@pytest.mark.parametrize("wrong", [None, *WRONG])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_int8_file(
    original: Artifact, tmp_path: Path, layout: Layout, wrong: str | None
) -> None:
    """However coarse its steps are."""
    source = original if wrong is None else with_wrong_weight(original, wrong, tmp_path)
    result = judged(original, in_int8(source, layout, tmp_path / "int8.onnx"))
    assert result.passed == (wrong is None), result.reason


def test_a_scale_that_differs_between_both_halves_of_a_pair(
    original: Artifact, tmp_path: Path
) -> None:
    """It would multiply a branch."""
    path = in_int8(original, "tensorrt", tmp_path / "int8.onnx")
    model = onnx.load(path)
    pair = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    node = next(n for n in model.graph.node if n.input[:1] == pair.output[:1])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.26), "other"))
    node.input[1] = "other"
    onnx.save(model, path)
    with pytest.raises(CheckFailedError, match=r"int8\.onnx: .* not the inverse of the Quantize"):
        judged(original, path)


def test_a_float32_file_stays_as_it_is(original: Artifact) -> None:
    form = float32_form(original.proto, ())
    assert [n.op_type for n in form.graph.node] == [n.op_type for n in original.proto.graph.node]


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


WEIGHT, OTHER, BIAS = numbers(8, 6, 1, 1), numbers(5, 6), numbers(8)
TWIN = numbers(8, 6)
LAYOUTS_OF_WEIGHTS = {
    "as it is": WEIGHT,
    "without empty axes": WEIGHT.reshape(8, 6),
    "transposed": WEIGHT.reshape(8, 6).T,
    "half of a gate": WEIGHT[4:],
    "half of a bias": BIAS[:4],
    "some channels": WEIGHT[3:6],
    "channels of two": np.concatenate([OTHER, WEIGHT.reshape(8, 6)]),
    "channels of two, transposed": np.concatenate([OTHER, WEIGHT.reshape(8, 6)]).T,
    "two stacked": np.stack([WEIGHT.ravel(), TWIN.ravel()]),
}


@pytest.mark.parametrize("layout", LAYOUTS_OF_WEIGHTS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_weight_is_found_by_its_rounding_in_every_layout(
    layout: str, dtype: type[np.generic]
) -> None:
    exact = LAYOUTS_OF_WEIGHTS[layout]
    weights = _Weights([TWIN, OTHER, WEIGHT, BIAS])
    rounded = _Rounded.cast(numpy_helper.from_array(exact.astype(dtype), "weight"))
    np.testing.assert_array_equal(weights.exact(rounded), exact)
    wrong = _Rounded(rounded.values * np.float32(1.05), rounded.steps)
    np.testing.assert_array_equal(weights.exact(wrong), wrong.values)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_quantized_weight_is_found(axis: int) -> None:
    exact = WEIGHT.reshape(8, 6) if axis == 0 else WEIGHT.reshape(8, 6).T
    levels, scales = quantized_weight(exact, axis)
    zeros = np.zeros(len(scales), np.int8)
    constants = {"levels": levels, "scale": scales, "zero": zeros}
    node = onnx.helper.make_node("DequantizeLinear", [*constants], ["weight"], axis=axis)
    rounded = _Rounded.quantized(node, constants)
    np.testing.assert_array_equal(_Weights([OTHER, WEIGHT]).exact(rounded), exact)


def test_steps_of_subnormal_numbers() -> None:
    tensor = numpy_helper.from_array(np.float16([0, 2**-24, 1, 65504]), "weight")
    assert tensor.data_type == TensorProto.FLOAT16
    assert _Rounded.cast(tensor).of(np.float32([2**-25, 1.4 * 2**-24, 1 + 2**-11, 65504]))
    assert not _Rounded.cast(tensor).of(np.float32([2**-24, 2**-24, 1, 65504]))


def test_the_file_beside_an_engine_is_judged(original: Artifact, tmp_path: Path) -> None:
    beside = tmp_path / "net.onnx"
    record = EngineRecord(
        onnx=OtherFile("net.onnx", original.sha256),
        backend="TensorRT 10.9.0",
        version="10.9.0",
        profile=None,
        flags=BuildOptions().flags(),
        plugins=(),
        check=EngineCheck("fp16", Census("layers", {}), None, ()),
    )
    engine = Artifact(tmp_path / "net.engine", replace(original.manifest, engine=record))
    assert graph_file(engine) is None
    assert "net.onnx, from which the engine was built, is not" in note_on_graph(engine, None, [])
    beside.write_bytes(b"another")
    assert graph_file(engine) is None
    beside.write_bytes(original.path.read_bytes())
    found = graph_file(engine)
    assert found is not None
    assert found.path == beside
    assert graph_file(original) is original
