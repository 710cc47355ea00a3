"""The OpenVINO extension: every case through the library, and files that need nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.libraries import openvino as openvino_library
from deblur_export.plugins.ops import OPS
from tests import needs
from tests.conftest import Exported
from tests.plugins.cases import NATIVE as CASES
from tests.plugins.cases import motion_deform_conv as motion_cases
from tests.plugins.cases import pixel_rows as row_cases
from tests.plugins.harness import Case, model_of
from tests.tolerances import NATIVE_BFLOAT16, NATIVE_FLOAT16, NATIVE_FLOAT32, NETWORK_FLOAT32

pytestmark = needs.OPENVINO.mark(needs.OPENVINO.installed())

CSRC = Path(cpu_compiler.__file__).resolve().parents[1] / "csrc"
LIBRARY = openvino_library.FILE.path()

compiler = needs.compiler
needed = needs.EXTENSION.mark(LIBRARY is not None and LIBRARY.exists())


@compiler
def test_built_where_openvino_and_a_compiler_are() -> None:
    """What else would be skipped here must not be skipped unseen."""
    assert LIBRARY is not None
    assert LIBRARY.exists(), "run: deblur-export plugins build"


@pytest.fixture(scope="module")
def core() -> Any:
    core = openvino_library.shared_core()
    core.add_extension(str(LIBRARY))
    return core


def result(
    core: Any,
    case: Case,
    precision: str = "f32",
    threads: int = 1,
    change: Callable[[onnx.ModelProto], object] = lambda model: None,
) -> NDArray[Any]:
    inputs = case.make(torch.float32)
    proto = model_of(case, "portable", inputs)
    change(proto)
    model = core.read_model(model=proto.SerializeToString())
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": str(threads)}
    compiled = core.compile_model(model, "CPU", config)
    return infer(compiled, inputs)


def infer(compiled: Any, inputs: dict[str, Any]) -> NDArray[Any]:
    """The output; an error is raised for any number of threads, also on one core."""
    names = {port.get_any_name() for port in compiled.inputs}
    feed = {k: v.numpy() for k, v in inputs.items() if isinstance(v, Tensor) and k in names}
    request = compiled.create_infer_request()
    request.start_async(feed)
    request.wait()
    return np.array(request.get_output_tensor(0).data)


def assert_near(y: NDArray[Any], case: Case, tolerance: float) -> None:
    exact = case.dense(**case.make(torch.float64)).numpy()
    assert y.shape == exact.shape
    if exact.dtype == np.int64:
        np.testing.assert_array_equal(y, exact)
    elif exact.size:
        assert np.abs(y - exact).max() < tolerance * np.abs(exact).max()  # false for NaN


@needed
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case(core: Any, case: Case) -> None:
    assert_near(result(core, case), case, NATIVE_FLOAT32)


@needed
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
@pytest.mark.parametrize("op", ["DynamicFilter3", "DynamicFilter5", "LocalMean"])
def test_filters_on_every_instruction_set(
    core: Any, op: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBLUR_ISA", isa)
    for case in CASES:
        if case.op == op:
            assert_near(result(core, case), case, NATIVE_FLOAT32)


FIRST = list({case.op: case for case in reversed(CASES)}.values())


@needed
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.op)
def test_threads_of_openvino(core: Any, case: Case) -> None:
    assert_near(result(core, case, threads=3), case, NATIVE_FLOAT32)


@needed
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("bf16", NATIVE_BFLOAT16), ("f16", NATIVE_FLOAT16)]
)
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.op)
def test_precision_of_openvino(core: Any, case: Case, precision: str, tolerance: float) -> None:
    if case.op == "TopPixels":
        pytest.skip("other scores, other pixels")
    assert_near(result(core, case, precision), case, tolerance)


def fixed(case: Case) -> Callable[[onnx.ModelProto], None]:
    """Writes the sizes of the case into its model."""
    sizes = {k: v.shape for k, v in tensors_of(case).items()}

    def change(model: onnx.ModelProto) -> None:
        for value in model.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, sizes[value.name], strict=True):
                dim.dim_value = size

    return change


def tensors_of(case: Case) -> dict[str, Tensor]:
    return {k: v for k, v in case.make(torch.float32).items() if isinstance(v, Tensor)}


LAYOUTS = [
    case for case in CASES if case.op in openvino_library.FEATURES and "length-1" not in case.name
] + [
    Case("MotionDeformConv", name, make, motion_cases.motion_deform_conv, motion_cases.tent_deform)
    for name, make in (
        ("wide", motion_cases.deform(2, 75, 6, 37, 2.0)),
        ("wide-gated", motion_cases.deform(2, 150, 3, 37, 2.0, gate=1)),
    )
]


@needed
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("f32", NATIVE_FLOAT32), ("bf16", NATIVE_BFLOAT16)]
)
@pytest.mark.parametrize("case", LAYOUTS, ids=str)
def test_channels_last_where_sizes_are_fixed(
    core: Any, case: Case, precision: str, tolerance: float
) -> None:
    """The same results; in bfloat16 the node itself takes and gives it."""
    proto = model_of(case, "portable", case.make(torch.float32))
    fixed(case)(proto)
    model = core.read_model(model=proto.SerializeToString())
    openvino_library.adapt(model, precision)
    (node,) = [node for node in model.get_ops() if node.get_type_name() == case.op]
    assert node.get_attributes()["last"] == 1
    assert node.get_output_element_type(0).get_type_name() == precision
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_near(infer(compiled, case.make(torch.float32)), case, tolerance)


@needed
def test_channel_attention_is_computed_before_features_are_turned(core: Any) -> None:
    """Its mean and its product, as a block has them; nothing turned is read twice."""
    case = next(case for case in CASES if case.op == "PrunedConv" and case.name == "coverage-40")
    proto = model_of(case, "portable", case.make(torch.float32))
    fixed(case)(proto)
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    for name, axis in (("rows_axis", 3), ("columns_axis", 2)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([axis]), name))
    proto.graph.node.extend(
        [
            make("ReduceMean", ["y", "rows_axis"], ["rows"], keepdims=1),
            make("ReduceMean", ["rows", "columns_axis"], ["mean"], keepdims=1),
            make("Mul", ["y", "mean"], ["attended"]),
        ]
    )
    del proto.graph.output[:]
    proto.graph.output.append(info("attended", onnx.TensorProto.FLOAT, [None] * 4))
    model = core.read_model(model=proto.SerializeToString())
    openvino_library.adapt(model, "f32")
    (node,) = [node for node in model.get_ops() if node.get_type_name() == case.op]
    readers = {port.get_node().get_type_name() for port in node.output(0).get_target_inputs()}
    assert readers == {"ReduceMean", "Multiply"}
    exact = case.dense(**case.make(torch.float64))
    exact = (exact * exact.mean((2, 3), keepdim=True)).numpy()
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    y = infer(compiled, case.make(torch.float32))
    assert np.abs(y - exact).max() < NATIVE_FLOAT32 * np.abs(exact).max()


def node_of(core: Any, case: Case, element: int) -> tuple[Any, list[Any]]:
    """The one node of a case whose values are of another type, and its tensors."""
    import openvino

    inputs = case.make(torch.float32)
    proto = model_of(case, "portable", inputs)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = element
    model = core.read_model(model=proto.SerializeToString())
    (node,) = [node for node in model.get_ops() if node.get_type_name() in NAMES]
    tensors = []
    for port in node.inputs():
        array = inputs[port.get_source_output().get_any_name()].numpy()
        tensor = openvino.Tensor(port.get_element_type(), array.shape)
        if tensor.size:
            _write(tensor, array)
        tensors.append(tensor)
    return node, tensors


NAMES = {name.rstrip("0123456789") if "Conv" not in name else name for name in OPS}
HALVES = {
    onnx.TensorProto.FLOAT16: (torch.float16, NATIVE_FLOAT16),
    onnx.TensorProto.BFLOAT16: (torch.bfloat16, NATIVE_BFLOAT16),
}


def _write(tensor: Any, array: NDArray[Any]) -> None:
    import openvino

    bits = openvino.Tensor(array).data
    if tensor.element_type == openvino.Type.bf16:
        bits = torch.from_numpy(array).bfloat16().view(torch.int16).numpy().view(tensor.data.dtype)
    tensor.data[...] = bits


def _read(tensor: Any) -> NDArray[Any]:
    import openvino

    if tensor.element_type != openvino.Type.bf16:
        return np.array(tensor.data)
    bits = np.array(tensor.data).view(np.int16)
    return torch.from_numpy(bits).view(torch.bfloat16).float().numpy()


@needed
@pytest.mark.parametrize("element", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.op)
def test_half_tensors_are_converted_at_the_border(core: Any, case: Case, element: int) -> None:
    import openvino

    dtype, tolerance = HALVES[element]
    node, tensors = node_of(core, case, element)
    output = openvino.Tensor(node.get_output_element_type(0), [0])
    assert node.evaluate([output], tensors)
    exact = case.make(dtype)  # the definition of the rounded inputs
    wide = {
        k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in exact.items()
    }
    y, expected = _read(output), case.dense(**wide).numpy()
    assert y.shape == expected.shape
    if expected.dtype == np.int64:
        np.testing.assert_array_equal(y, expected)
    else:
        # What is left is the rounding of the output.
        assert np.abs(y - expected).max() < tolerance / 4 * np.abs(expected).max()


def _with_shape(name: str, *shape: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (info,) = [value for value in model.graph.input if value.name == name]
        for dim, size in zip(info.type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size

    return change


@needed
def test_shapes_that_do_not_fit_are_refused(core: Any) -> None:
    case = next(case for case in motion_cases.CASES if case.name == "batch-odd")
    with pytest.raises(RuntimeError, match=r"offset is .*16.*not .*18"):
        result(core, case, change=_with_shape("offset", 2, 16, 7, 11))
    wrong = motion_cases.deform(2, 6, 7, 11, 1.0)(torch.float32)
    wrong["bias"] = wrong["bias"][:5]
    proto = model_of(case, "portable", case.make(torch.float32))
    model = core.compile_model(core.read_model(model=proto.SerializeToString()), "CPU")
    with pytest.raises(RuntimeError, match="bias is"):
        infer(model, wrong)


@needed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("number", [-1, 84])
def test_a_pixel_index_outside_is_refused(core: Any, number: int, threads: int) -> None:
    case = row_cases.CASES[0]
    inputs = row_cases.gather(2, 3, 6, 7, 0.3, 3)(torch.float32)
    inputs["index"][1] = number
    proto = model_of(case, "portable", inputs)
    config = {"INFERENCE_NUM_THREADS": str(threads)}
    model = core.compile_model(core.read_model(model=proto.SerializeToString()), "CPU", config)
    with pytest.raises(RuntimeError, match="a pixel number lies outside the images"):
        infer(model, inputs)


@needed
def test_ir_files_keep_the_ops(core: Any, tmp_path: Path) -> None:
    """openvino.save_model writes their attributes."""
    import openvino

    case = next(case for case in CASES if case.op == "SelectiveScan" and case.name == "no-gate")
    inputs = case.make(torch.float32)
    model = core.read_model(model=model_of(case, "portable", inputs).SerializeToString())
    openvino.save_model(model, tmp_path / "scan.xml", compress_to_fp16=False)
    again = core.compile_model(core.read_model(tmp_path / "scan.xml"), "CPU")
    assert_near(infer(again, inputs), case, NATIVE_FLOAT32)


THREE_LINES = """
import sys, numpy, openvino
library, network, image, output = sys.argv[1:]
core = openvino.Core()
core.add_extension(library)
model = core.compile_model(core.read_model(network), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
numpy.save(output, model({"image": numpy.load(image)})[0])
assert not {"deblur_export", "torch"} & set(sys.modules)
"""


@needed
def test_a_file_and_the_library_are_enough(exported: Exported, tmp_path: Path) -> None:
    """Elsewhere, in a process without this package."""
    network = exported("m2aenet").path
    image = np.random.default_rng(0).random((2, 3, 33, 47), dtype=np.float32)
    np.save(tmp_path / "image.npy", image)
    assert LIBRARY is not None
    copy = shutil.copy(LIBRARY, tmp_path)
    files = (copy, network, tmp_path / "image.npy", tmp_path / "output.npy")
    subprocess.run([sys.executable, "-c", THREE_LINES, *map(str, files)], check=True, cwd=tmp_path)
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["restored"], {"image": image})
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), expected, **NETWORK_FLOAT32)


@needed
def test_the_library_that_is_built_here_is_found() -> None:
    import openvino

    assert openvino_library.find(openvino.__version__) == (LIBRARY.absolute(), "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no library of these ops"),
        (
            b"deblur ops 1 for OpenVINO 2025.3.0",
            "for OpenVINO 2025.3.0, not 2026.4.1; .*plugins build",
        ),
        (b"deblur ops 999 for OpenVINO 2026.4.1", "version 999 of the ops"),
        (None, "no /.*; .*plugins build"),
    ],
    ids=["strange", "another-release", "another-version", "missing"],
)
def test_a_library_that_does_not_fit_is_refused(
    content: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / cpu_compiler.EXTENSION
    if content is not None:
        library.write_bytes(content)
    monkeypatch.setenv("DEBLUR_OPENVINO_LIBRARY", str(library))
    found = openvino_library.find("2026.4.1-21919-release")
    assert found.path is None
    assert re.search(reason, found.reason)
    assert "\n" not in found.reason


def test_none_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBLUR_OPENVINO_LIBRARY", "none")
    assert openvino_library.find("2026.4.1") == (
        None,
        "switched off by DEBLUR_OPENVINO_LIBRARY=none",
    )


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_in_the_library(name: str) -> None:
    """Also those that no case of a network uses."""
    source = "".join(path.read_text(encoding="utf-8") for path in (CSRC / "openvino").glob("*.cpp"))
    written = name if "Conv" in name else name.rstrip("0123456789")
    assert OPS[name].openvino == bool(re.search(rf"\b{written}\b", source))


@compiler
def test_openvino_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other library is built all the same."""
    monkeypatch.setattr(cpu_compiler, "TARGETS", {"scalar": ()})
    monkeypatch.setattr(cpu_compiler, "FLAGS", ("-fPIC", "-std=c++17"))
    sources = tmp_path / "csrc"
    (sources / "op").mkdir(parents=True)
    (sources / "op" / "kernel.cpp").write_text("int nothing;", encoding="utf-8")

    def missing() -> Path:
        raise cpu_compiler.BuildError("OpenVINO is not installed")

    monkeypatch.setattr(cpu_compiler, "openvino_package", missing)
    reason = cpu_compiler.build(sources, tmp_path / "one.so", tmp_path / "two.so")
    assert reason == "OpenVINO is not installed"
    assert {path.name for path in tmp_path.iterdir()} == {"csrc", "one.so"}
