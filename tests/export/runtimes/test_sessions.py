"""The runtimes on the CPU give the same image, say who they are, and fail with one clear line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import random_cases
from deblur_export.export.parity.verify import compare_layers, reference_model, verify
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.restore import Restorer
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.runtimes.openvino import OpenVinoSession
from deblur_export.export.tile_choice import TileOptions
from deblur_export.plugins.compile.cpu import EXTENSION
from deblur_export.plugins.libraries import openvino as openvino_library
from tests import needs
from tests.conftest import Exported

DYNAMIC = ("batch", 3, "height", "width")


def capabilities() -> Collection[str]:
    """The precisions of this processor, in OpenVINO's names."""
    core = openvino_library.shared_core()
    return core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # type: ignore[no-any-return]


@pytest.fixture
def _openvino() -> None:
    needs.OPENVINO.load()


@pytest.fixture
def native(_openvino: None) -> None:
    """Needs the native ops."""
    import openvino

    found = openvino_library.find(openvino.__version__)
    if found.path is None:
        pytest.skip(needs.EXTENSION.reason)


@pytest.fixture
def inlined(_openvino: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does without them."""
    monkeypatch.setenv("DEBLUR_OPENVINO_LIBRARY", "none")


@pytest.mark.parametrize(
    ("model", "ops"),
    [
        ("m2aenet", "native"),  # the other networks: test_every_network, with --target openvino
        ("algnet", "native"),
        ("m2aenet", "inlined"),
        ("nafnet", "inlined"),
    ],
)
def test_openvino_agrees_with_pytorch(
    exported: Exported, model: str, ops: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(ops)
    artifact = exported(model)
    reference, cases = reference_model(artifact), random_cases(artifact.manifest.input.shape)
    report = verify(artifact, reference, cases[1:], runtime="openvino")
    assert report.passed, [case.reason for case in report.cases]
    assert "OpenVINO" in report.candidate
    assert "fp32" in report.candidate
    assert ("with native ops" in report.candidate) == (ops == "native")
    assert len(report.notes) == (model != "nafnet" and ops == "inlined")
    layers = compare_layers(artifact, reference, cases[1], "openvino")
    assert len(layers) > 20
    assert not any(layer.diverged for layer in layers)


@pytest.mark.usefixtures("_openvino")
@pytest.mark.parametrize("library", ["none", "stale", "broken"])
def test_openvino_tells_that_it_does_without_native_ops(
    exported: Exported, library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import openvino

    path, release = tmp_path / EXTENSION, openvino.__version__.split("-")[0]
    path.write_text(
        f"deblur ops 1 for OpenVINO {release if library == 'broken' else '2025.3.0'}",
        encoding="utf-8",
    )
    monkeypatch.setenv("DEBLUR_OPENVINO_LIBRARY", library if library == "none" else str(path))
    artifact = exported("m2aenet")
    session = open_session(artifact.path, "openvino")
    assert "native" not in session.title
    (note,) = session.notes
    assert note.startswith("OpenVINO runs the custom ops as standard operators: ")
    assert (str(path) in note) == (library != "none")
    assert "\n" not in note
    assert open_session(exported("nafnet").path, "openvino").notes == ()


@pytest.mark.usefixtures("_openvino")
def test_openvino_restores_and_keeps_the_precision_it_is_given(exported: Exported) -> None:
    """It would take bf16 by itself where the processor can."""
    if "BF16" not in capabilities():
        pytest.skip("this processor has no bf16")
    artifact = exported()
    rgb = np.random.default_rng(0).random((50, 70, 3), dtype=np.float32)
    restored = {
        precision: Restorer(artifact, True, "openvino", precision).restore(rgb, TileOptions())
        for precision in ("fp32", "bf16")
    }
    found = Restorer(artifact, True).restore(rgb, TileOptions())
    mask = restored["fp32"].mask
    assert mask is not None
    assert found.mask is not None
    assert (mask != found.mask).mean() < 0.02
    assert np.abs(restored["fp32"].rgb - found.rgb).max() < 1e-4
    session = open_session(artifact.path, "openvino", precision="bf16")
    assert session.title.endswith("bf16")
    assert isinstance(session, OpenVinoSession)
    hint = session.request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
    assert "bf" in str(hint)


@pytest.mark.usefixtures("_openvino")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_is_had_or_refused(exported: Exported, precision: str) -> None:
    """OpenVINO would take the hint and compute in something else."""
    able = capabilities()
    path = exported("nafnet").path
    if precision.upper() in able:
        session = open_session(path, "openvino", precision=precision)  # type: ignore[arg-type]
        assert session.title.endswith(precision)
    else:
        with pytest.raises(DeblurExportError, match=f"no {precision} on this processor; it has"):
            open_session(path, "openvino", precision=precision)  # type: ignore[arg-type]


def test_openvino_that_is_not_installed(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeblurExportError, match=r"deblur-export\[openvino\]"):
        open_session(exported("nafnet").path, "openvino")


def test_onnxruntime_has_no_precision_of_its_own(exported: Exported) -> None:
    with pytest.raises(DeblurExportError, match="--precision is for OpenVINO"):
        open_session(exported("nafnet").path, precision="bf16")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_float16_input_and_output_are_float32_outside(
    tmp_path: Path, runtime: str, request: pytest.FixtureRequest
) -> None:
    if runtime == "openvino":
        request.getfixturevalue("_openvino")
    import onnx

    kind = "float16[n, 3, h, w]"
    text = f"""<ir_version: 9, opset_import: ["": 18]> net ({kind} image) => ({kind} restored) {{
        wide = Cast<to = 1>(image)
        sum = Add(wide, wide)
        restored = Cast<to = 10>(sum) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "half.onnx")
    image = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    restored = open_session(tmp_path / "half.onnx", runtime).run({"image": image})["restored"]
    assert restored.dtype == np.float32
    np.testing.assert_array_equal(restored, 2 * image.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_does_not_load(
    exported: Exported, tmp_path: Path, runtime: str, request: pytest.FixtureRequest
) -> None:
    if runtime == "openvino":
        request.getfixturevalue("_openvino")
    import onnx

    model = onnx.load(exported("nafnet").path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(DeblurExportError, match="damaged ONNX file: No Op") as caught:
        open_session(tmp_path / "strange.onnx", runtime)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_run_that_fails_is_told(
    exported: Exported, runtime: str, request: pytest.FixtureRequest
) -> None:
    if runtime == "openvino":
        request.getfixturevalue("_openvino")
    session = open_session(exported("nafnet").path, runtime, threads=1)
    with pytest.raises(DeblurExportError, match="failed on 1x4x16x16"):
        session.run({"image": np.zeros((1, 4, 16, 16), np.float32)})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("op", ["stock", "native"])
def test_openvino_tells_the_error_of_a_node_for_any_number_of_threads(
    tmp_path: Path, op: str, threads: int, request: pytest.FixtureRequest
) -> None:
    """With one thread its infer() loses them and returns the previous result, or nothing."""
    request.getfixturevalue("native" if op == "native" else "_openvino")
    import onnx

    shape = "float[n, 2, h, w]"
    body, index, result = {
        "stock": ("y = Add(x, index)", "float[n, c, h, w]", "float[n, m, h, w]"),
        "native": ("y = deblur.PixelGather<kernel = 1>(x, index)", "int64[p]", "float[r, s, t, u]"),
    }[op]
    text = f"""<ir_version: 8, opset_import: ["": 18, "deblur": 1]>
    g ({shape} x, {index} index) => ({result} y) {{ {body} }}
    <domain: "deblur", opset_import: ["": 18]>
    PixelGather <kernel> (x, index) => (rows) {{ rows = Gather<axis = 0>(x, index) }}"""
    model = onnx.parser.parse_model(text)
    onnx.save(model, tmp_path / "net.onnx")
    session = open_session(tmp_path / "net.onnx", "openvino", threads=threads)
    x = np.ones((1, 2, 4, 4), np.float32)
    right, wrong = {
        "stock": (x, np.ones((1, 3, 4, 4), np.float32)),
        "native": (np.array([1, 2]), np.array([1, 99])),
    }[op]
    for _ in range(2):  # compiled for the size, too
        assert session.run({"x": x, "index": right})["y"].size
    with pytest.raises(DeblurExportError, match=r"outside the images|mismatch|incompatible"):
        session.run({"x": x, "index": wrong})


@pytest.mark.usefixtures("_openvino")
def test_bf16_of_openvino_is_judged_as_bf16(exported: Exported) -> None:
    if "BF16" not in capabilities():
        pytest.skip("this processor has no bf16")
    artifact = exported("nafnet", options=ExportOptions("openvino"))
    reference, cases = reference_model(artifact), random_cases(DYNAMIC)[:2]
    report = verify(artifact, reference, cases, runtime="openvino", precision="bf16")
    assert report.passed
    assert "bf16" in report.candidate
    assert all(1e-4 < case.max_abs < 8e-2 for case in report.cases)


TWO_SESSIONS = """
import signal, sys
from pathlib import Path
from deblur_export.export.runtimes.open import open_session

caught = []
signal.signal(signal.SIGINT, lambda *_: caught.append(True))
first, second = (open_session(Path(sys.argv[1]), "openvino") for _ in range(2))
del first
del second
signal.raise_signal(signal.SIGINT)
assert caught
"""


@pytest.mark.usefixtures("_openvino")
def test_a_signal_after_two_sessions_is_caught(exported: Exported) -> None:
    """With a core each, the process would have an unmapped signal stack and crash here."""
    path = str(exported("nafnet").path)
    subprocess.run([sys.executable, "-c", TWO_SESSIONS, path], check=True)
