"""An engine that is built on another machine, with the commands that we print, is verified and run.

The engine is a stand-in: its ONNX file, which the stand-in for TensorRT runs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deblur_export.artifact import read_artifact, sidecar_path
from deblur_export.engine_file import read_engine, shape_range
from deblur_export.engine_record import Census
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.engines.check import Claim, check_layers
from deblur_export.export.engines.elsewhere import check_built_elsewhere, instructions, layers_path
from deblur_export.export.engines.options import BuildOptions, Sizes, profile_for
from deblur_export.export.images.cases import cases_for
from deblur_export.export.parity.verify import reference_model, verify
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.restore import Restorer
from deblur_export.precision import EnginePrecision
from tests.conftest import Exported
from tests.export.runtimes.test_tensorrt_session import Context, Fake, gpu

__all__ = ["gpu"]  # a fixture
SIZES = Sizes(smallest=(16, 16), largest=(96, 96), batch=(1, 1, 2))


@pytest.fixture
def engine(exported: Exported, tmp_path: Path) -> Path:
    """The path of an engine whose commands were printed and run."""
    source = exported("nafnet", options=ExportOptions("rtx"))
    for path, copy in ((source.path, "net.onnx"), (sidecar_path(source.path), "net.onnx.json")):
        shutil.copy(path, tmp_path / copy)
    path = tmp_path / "net.engine"
    typed = read_artifact(tmp_path / "net.onnx")
    profile = profile_for(typed.manifest.input.shape, SIZES)
    lines = instructions(typed, path, profile, BuildOptions(sizes=SIZES), ("no GPU",))
    assert any(line.startswith("trtexec") for line in lines)
    with pytest.raises(DeblurExportError, match=r"net\.engine: no such file"):
        read_engine(path)
    shutil.copy(typed.path, path)
    return path


def layers(*types: str) -> str:
    """As trtexec lists them."""
    inputs = [[{"Name": "x", "Format/Datatype": f"{kind} NHWC8"}] for kind in types]
    listed = [{"LayerType": "CaskConvolution", "Inputs": entry} for entry in inputs]
    return json.dumps({"Layers": listed, "Bindings": ["image", "restored"]})


def test_it_is_verified_and_run(engine: Path, gpu: Callable[[Fake], None]) -> None:
    layers_path(engine).write_text(layers("FP32", "FP32"), encoding="utf-8")
    artifact = read_engine(engine)
    assert artifact.manifest.file is None
    assert shape_range(artifact) == ((1, 3, 16, 16), (2, 3, 96, 96))
    gpu(Fake(Context(engine), version="10.12.1"))
    assert Restorer(artifact, runtime="tensorrt").session.title.startswith("TensorRT 10.12.1")
    cases = cases_for(artifact, None)[:1]
    report = verify(artifact, reference_model(artifact), cases, runtime="tensorrt")
    assert report.passed, report.cases[0].reason
    assert "fp32 of 2" in " ".join(report.notes)
    # From then on it is that file.
    artifact.recorded()
    assert read_engine(engine).manifest.file is not None
    engine.write_bytes(b"another")
    with pytest.raises(DeblurExportError, match="is not the file that"):
        read_engine(engine)


def test_its_layers_are_in_another_precision(engine: Path, gpu: Callable[[Fake], None]) -> None:
    layers_path(engine).write_text(layers("FP32", "FP16"), encoding="utf-8")
    artifact = read_engine(engine)
    gpu(Fake(Context(engine)))
    with pytest.raises(
        CheckFailedError, match=r"net\.engine: asked for fp32, but the engine is not"
    ):
        verify(artifact, reference_model(artifact), [], runtime="tensorrt")


@pytest.mark.parametrize(
    ("precision", "counts", "passes"),
    [
        ("fp32", {"fp32": 5}, True),
        ("fp32", {"fp32": 50, "fp16": 1}, False),
        ("fp16", {"fp16": 5, "fp32": 5}, True),
        ("fp16", {"fp16": 4, "fp32": 6}, False),
        ("bf16", {"fp16": 9}, False),
        ("int8", {"int8": 1, "fp32": 9}, True),
        ("int8", {"fp32": 9}, False),
        ("int8+fp16", {"int8": 1, "fp16": 9}, True),
        ("int8+fp16", {"fp16": 9}, False),
        ("int8+fp16", {"int8": 3, "fp16": 1, "fp32": 9}, False),
    ],
)
def test_precision_by_the_layers_alone(
    precision: EnginePrecision, counts: dict[str, int], passes: bool
) -> None:
    census = Census("layers of the engine (inspector)", counts)
    if passes:
        assert check_layers(precision, census, Claim("net.engine")) == census
    else:
        with pytest.raises(CheckFailedError, match=r"^net\.engine: asked for "):
            check_layers(precision, census, Claim("net.engine"))


@pytest.mark.parametrize("content", ["", "[]", '{"Layers": 1}', '{"layers": []}', b"\xff\xfe"])
def test_a_list_that_is_none(engine: Path, content: Any) -> None:
    path = layers_path(engine)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DeblurExportError, match="not the list of layers that trtexec writes"):
        check_built_elsewhere(read_engine(engine))


def test_without_a_list_or_types_the_user_is_told(engine: Path) -> None:
    (note,) = check_built_elsewhere(read_engine(engine))
    assert note.startswith("net.layers.json is not beside the engine")
    layers_path(engine).write_text('{"Layers": ["conv"]}', encoding="utf-8")
    (note,) = check_built_elsewhere(read_engine(engine))
    assert "shows no types" in note
