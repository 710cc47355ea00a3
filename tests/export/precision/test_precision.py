"""float16 and bfloat16 in the graph: exact where they must be, proved, and refused where wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

from deblur_export import models
from deblur_export.artifact import Artifact, ModelFile
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.images.cases import random_cases
from deblur_export.export.parity.verify import reference_model, verify
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.precision import summary
from deblur_export.export.precision.cast import element_type, lower_precision
from deblur_export.export.precision.check import check_precision
from deblur_export.export.precision.half_io import half_io_file
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.export.runtimes.emulated_session import EmulatedSession
from deblur_export.plugins.ops import OPS
from deblur_export.precision import GRAPH_PRECISIONS, LOW, GraphPrecision
from deblur_export.target import TARGETS, TargetName
from tests.conftest import Exported
from tests.plugins.cases import CASES
from tests.plugins.harness import Case, arrays, model_of, outputs_of, split_attributes
from tests.tolerances import OP_BFLOAT16, OP_FLOAT16

LOWER = GRAPH_PRECISIONS[1:]
SMALL = ("batch", 3, "height", "width")
Typed = Callable[..., Artifact]
# bfloat16 differs from float16 in nothing but the type.
TYPED = [
    pytest.param(name, precision, marks=[pytest.mark.slow] * (precision == "bf16" and large))
    for name in models.NAMES
    for precision in LOWER
    for large in [name in ("aibnet", "algnet", "dhnet", "saphn")]
]


@pytest.fixture(scope="session")
def typed(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    """typed(model, precision) -> the tiny artifact in that precision."""
    made: dict[tuple[str, str], Artifact] = {}

    def make(model: str, precision: GraphPrecision) -> Artifact:
        if (model, precision) not in made:
            path = tmp_path_factory.mktemp("typed") / f"{model}_{precision}.onnx"
            made[model, precision] = typed_artifact(exported(model), precision, path)
        return made[model, precision]

    return make


@pytest.mark.parametrize(("name", "precision"), TYPED)
def test_every_network_is_valid_and_within_its_tolerance(
    typed: Typed, name: str, precision: GraphPrecision
) -> None:
    artifact = typed(name, precision)
    onnx.checker.check_model(onnx.load(artifact.path), full_check=True)
    case = random_cases(artifact.manifest.input.shape)[1]
    report = verify(artifact, reference_model(artifact), [case])
    assert report.passed, report.cases[0].reason
    assert report.cases[0].psnr < 100, "nothing was rounded"
    facts = artifact.manifest.precision_map
    assert artifact.manifest.precision == precision and facts is not None
    assert facts.multiply_adds.conv >= 0.95
    assert sum(map(len, facts.kept_fp32.values())) == facts.nodes["fp32"]
    assert f"{precision}: " in summary(artifact.manifest)


def test_a_wrong_weight_fails_in_low_precision_too(typed: Typed, tmp_path: Path) -> None:
    artifact = typed("nafnet", "fp16")
    model = onnx.load(artifact.path)
    tensor = next(t for t in model.graph.initializer if t.name == "encoders.1.0.conv4.weight")
    wrong = numpy_helper.to_array(tensor) * np.float16(1.2)
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    changed = Artifact(path, artifact.manifest)
    report = verify(changed, reference_model(artifact), random_cases(SMALL)[:1])
    assert not report.passed
    assert report.first_diverged == "encoders.1.0.conv4"


def test_min_psnr_is_a_bound_of_its_own(typed: Typed) -> None:
    artifact = typed("nafnet", "fp16")
    model, cases = reference_model(artifact), random_cases(SMALL)[3:]
    assert verify(artifact, model, cases, min_psnr=61).passed
    refused = verify(artifact, model, cases, min_psnr=120)
    assert "PSNR" in refused.cases[0].reason


@pytest.mark.parametrize("target", TARGETS)
def test_custom_ops_stay_nodes_and_take_the_types_they_declare(
    exported: Exported, target: TargetName
) -> None:
    source = ir.load(exported(options=ExportOptions(target=target)).path)
    lowered, _ = lower_precision(source, "fp16", target)
    nodes = [node for node in lowered.graph if node.domain == "deblur"]
    assert [n.name for n in nodes] == [n.name for n in source.graph if n.domain == "deblur"]
    for node in nodes:
        wanted = {"T": ir.DataType.FLOAT16, "tensor(float)": ir.DataType.FLOAT}
        for tensor, value in zip(OPS[node.op_type].inputs.values(), node.inputs, strict=False):
            if value is not None:
                assert value.dtype == wanted[tensor.type], (node.name, value.name)


def test_kept_nodes_and_their_reasons(typed: Typed) -> None:
    facts = typed("m2aenet", "fp16").manifest.precision_map
    assert facts is not None
    by_node = {node: reason for reason, nodes in facts.kept_fp32.items() for node in nodes}
    assert by_node["encoders.0.0.sca.0/ReduceMean"].startswith("sums")
    assert by_node["mask_predictor.head.4/MatMul"].startswith("decides")
    assert by_node["motion_analyzer.flow/Conv"].startswith("coordinates")
    assert by_node["crop/Slice"].startswith("the output image")
    assert "encoders.0.0.conv1/Conv" not in by_node
    assert "encoders.0.0.norm1/LayerNormalization" not in by_node


def test_input_and_output_stay_float32_and_names_are_kept(typed: Typed, exported: Exported) -> None:
    for precision in LOWER:
        graph, plain = (
            onnx.load(typed("nafnet", precision).path).graph,
            onnx.load(exported("nafnet").path).graph,
        )
        for found, expected in ((graph.input, plain.input), (graph.output, plain.output)):
            assert list(found) == list(expected)
        assert {n.name for n in plain.node} <= {n.name for n in graph.node}
        assert {t.name for t in plain.initializer} == {t.name for t in graph.initializer}


def test_polygraphy_and_onnx_runtime_run_the_typed_file(typed: Typed) -> None:
    artifact = typed("m2aenet", "fp16")
    image = random_cases(SMALL)[1].image
    with OnnxrtRunner(SessionFromOnnx(str(artifact.path))) as runner:
        exact = runner.infer({"image": image})["restored"]
    emulated = EmulatedSession(artifact, "fp16").run({"image": image})["restored"]
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact, emulated, atol=5e-3)


# Each op's first case; on bfloat16 the bodies differ from float16 in nothing but the type.
FIRST = list({case.op: case for case in reversed(CASES)}.values())
FORMS: list[tuple[TargetName, GraphPrecision]] = [(target, "fp16") for target in TARGETS]


@pytest.mark.parametrize(("target", "precision"), [*FORMS, ("portable", "bf16")])
@pytest.mark.parametrize("case", FIRST, ids=str)
def test_bodies_of_custom_ops_against_float64(
    case: Case, target: TargetName, precision: GraphPrecision, tmp_path: Path
) -> None:
    """On data that the low precision holds exactly, so that the body alone is judged."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    inputs = case.make(torch.float32)
    tensors, _ = split_attributes(case.op, inputs)
    for name, value in tensors.items():
        if value is not None and OPS[case.op].inputs[name].type == "T":
            inputs[name] = value.to(dtype).float()
    model, _ = lower_precision(ir.from_proto(model_of(case, target, inputs)), precision, target)
    path = tmp_path / "op.onnx"
    ir.save(model, path)
    feed = arrays({name: inputs[name] for name in tensors})
    found = EmulatedSession(ModelFile(path), precision).run(feed)
    double = {
        k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in inputs.items()
    }
    tolerance = {"fp16": OP_FLOAT16, "bf16": OP_BFLOAT16}[precision]
    for y, expected in zip(found.values(), outputs_of(case.dense(**double)), strict=True):
        exact = expected.numpy()
        largest = max(np.abs(exact).max(initial=0), 1)
        if exact.dtype == np.int64:
            np.testing.assert_array_equal(y, exact)
        else:
            assert np.abs(y - exact).max(initial=0) <= tolerance * largest


def test_stripped_casts_fail_the_check(typed: Typed) -> None:
    """What the silent exporters do: the claim stays, the arithmetic does not."""
    model = onnx.load(typed("nafnet", "fp16").path)
    assert check_precision(ir.from_proto(model), "fp16").convolutions == 1
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    del model.graph.value_info[:]
    with pytest.raises(CheckFailedError, match=r"0\.0% .* fp16"):
        check_precision(ir.from_proto(model), "fp16")


def chain(weight: float, inner: float = 1.0) -> ir.Model:
    """image * inner -> conv "a" -> conv "b" with weights of this size -> restored."""
    text = """
    <ir_version: 10, opset_import: ["": 18]>
    net (float[n, 3, h, w] image) => (float[n, 3, h, w] restored)
    <float[1] scale, float[3, 3, 1, 1] a_weight, float[3, 3, 1, 1] b_weight> {
        [scaled] scaled = Mul(image, scale)
        [a] a = Conv(scaled, a_weight)
        [b] b = Conv(a, b_weight)
        [relu] relu = Relu(b)
        [restored] restored = Add(relu, image)
    }"""
    model = onnx.parser.parse_model(text)
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    values = {
        "scale": np.array([inner], np.float32),
        "a_weight": eye,
        "b_weight": (eye * weight).astype(np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
    return ir.from_proto(model)


def test_weights_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(DeblurExportError, match=r"fp16 \(65504\): b_weight \(up to 1e\+05\)"):
        lower_precision(chain(1e5), "fp16", "portable")
    lower_precision(chain(1e5), "bf16", "portable")


def test_small_weights_are_counted() -> None:
    _, casting = lower_precision(chain(1e-9), "fp16", "portable")
    assert (casting.flushed, casting.subnormal) == (3, 3)
    _, casting = lower_precision(chain(1e-6), "fp16", "portable")
    assert (casting.flushed, casting.subnormal) == (0, 3)


def test_float16_input_and_output(typed: Typed, exported: Exported, tmp_path: Path) -> None:
    """The same arithmetic; the image is rounded before it and the result after it."""
    image = random_cases(SMALL)[1].image.astype(np.float16)
    for source in (typed("nafnet", "fp16"), exported("nafnet")):
        half = half_io_file(source, tmp_path / "half.onnx")
        assert {half.manifest.input.dtype, half.manifest.output.dtype} == {"float16"}
        graph = onnx.load(half.path).graph
        onnx.checker.check_model(onnx.load(half.path), full_check=True)
        ends = [*graph.input, *graph.output]
        assert [end.name for end in ends] == ["image", "restored"]
        assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT16}
        feed = {"image": image.astype(np.float32)}
        found, expected = (
            EmulatedSession(artifact, "fp16").run(feed)["restored"] for artifact in (half, source)
        )
        np.testing.assert_array_equal(found, expected.astype(np.float16))
        session = ort.InferenceSession(half.path, providers=["CPUExecutionProvider"])
        (there,) = session.run(None, {"image": image})
        assert there.dtype == np.float16
        np.testing.assert_allclose(there, found, atol=2e-3)
    near = feed["image"] * np.float32(1 + 1e-4)  # less than half a unit in the last place
    rounded = EmulatedSession(half, "fp16").run({"image": near})["restored"]
    np.testing.assert_array_equal(rounded, found)
    with pytest.raises(DeblurExportError, match="already"):
        half_io_file(half, tmp_path / "again.onnx")
    with pytest.raises(DeblurExportError, match="float16 input and cannot become fp16"):
        typed_artifact(half, "fp16", tmp_path / "again.onnx")


TRANSPOSED = """
<ir_version: 10, opset_import: ["": 18]>
net (float[n, 3, h, w] image) => (float[n, 3, h, w] restored)
<float[3, 3, 1, 1] a_weight, float[3, 3, 1, 1] b_weight> {
    [a] a = Conv(image, a_weight)
    [b] b = ConvTranspose(a, b_weight)
    [restored] restored = Add(b, image)
}"""


def test_what_a_builder_refuses_stays_float32_for_its_target_alone() -> None:
    proto = onnx.parser.parse_model(TRANSPOSED)
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    weights = [numpy_helper.from_array(eye, name) for name in ("a_weight", "b_weight")]
    proto.graph.initializer.extend(weights)
    for target in TARGETS:
        for precision in LOWER:
            lowered, casting = lower_precision(ir.from_proto(proto), precision, target)
            refused = (target, precision) == ("rtx", "bf16")
            reasons = [reason for reason, nodes in casting.kept.items() if nodes == ["b"]]
            assert reasons == list(TARGETS[target].refused.get(precision, {}).values())
            assert bool(reasons) == refused
            kinds = dict.fromkeys(["ConvTranspose"]) if refused else {}
            check_precision(lowered, precision, refused=kinds)
            if refused:
                with pytest.raises(CheckFailedError, match=r"only 50\.0%"):
                    check_precision(lowered, precision)


def test_a_typed_file_is_not_typed_again(typed: Typed, tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match="is fp16 and cannot become bf16"):
        typed_artifact(typed("nafnet", "fp16"), "bf16", tmp_path / "again.onnx")


def test_rounding_is_that_of_the_type() -> None:
    """The emulation gives exactly the numbers of the low precision, ties and subnormals too."""
    values = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-25, 3 * 2.0**-25, 70000.0], np.float32)
    text = """<ir_version: 10, opset_import: ["": 22]> g (float[5] x) => (float[5] y) {
        low = Cast<to = %d>(x)
        y = Cast<to = 1>(low) }"""
    for record in LOW.values():
        model = onnx.parser.parse_model(text % int(element_type(record)))
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (y,) = session.run(None, {"x": values})
        dtype = getattr(torch, record.dtype)
        np.testing.assert_array_equal(y, torch.from_numpy(values).to(dtype).float().numpy())
