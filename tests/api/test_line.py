"""The functions from a network to a verified file, as a caller in Python meets them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import deblur_export
from deblur_export import DeblurExportError
from tests.conftest import Exported

FIXED = (1, 3, 32, 48)


def test_verify_writes_reports_and_records(exported: Exported, tmp_path: Path) -> None:
    artifact = exported()
    steps: list[str] = []
    report = deblur_export.verify(
        artifact.path,
        json=tmp_path / "parity.json",
        html=tmp_path / "p.html",
        progress=steps.append,
    )
    assert report.passed and steps
    assert (
        json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))["verdict"]
        == report.verdict
    )
    assert "<html" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_threads_export_and_verify(tmp_path: Path) -> None:
    """PyTorch's exporter works with process-wide flags: calls of several threads wait."""

    def whole_line(seed: int) -> bool:
        model = deblur_export.load_model("nafnet", f"random:{seed}", variant="tiny")
        path = tmp_path / f"{seed}.onnx"
        artifact = deblur_export.export_onnx(model, path, shape=FIXED, reparam=False)
        return deblur_export.verify(artifact, model).passed

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(whole_line, range(2))) == [True, True]


def test_a_name_stands_for_the_network(tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match="did you mean 'nafnet'"):
        deblur_export.export_onnx("nafnett", tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("target", "gpu", "portable, ort"), ("precision", "f16", "fp32, fp16"), ("io", 16, "fp32")],
)
def test_an_unknown_value_is_named(option: str, value: object, known: str, tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match=f"{option} is {value!r}, not one of {known}"):
        deblur_export.export_onnx("nafnet", tmp_path / "net.onnx", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["precision", "backend", "io"])
def test_an_unknown_value_for_an_engine_is_named(option: str, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {option: "none"}
    with pytest.raises(DeblurExportError, match=f"{option} is 'none', not one of"):
        deblur_export.build_engine(tmp_path / "net.onnx", **wrong)


def test_options_that_exclude_each_other(exported: Exported, tmp_path: Path) -> None:
    artifact = exported()
    with pytest.raises(DeblurExportError, match="needs a network's name"):
        deblur_export.load_model()
    with pytest.raises(DeblurExportError, match="sharp images of pairs"):
        deblur_export.verify(artifact, max_psnr_drop=0.1)
    with pytest.raises(DeblurExportError, match="are for int8"):
        deblur_export.build_engine(artifact, precision="fp16", images=tmp_path)


def test_an_engine_without_a_gpu(exported: Exported, tmp_path: Path) -> None:
    """Where no TensorRT can build, the typed file and the commands are what one gets."""
    with pytest.raises(DeblurExportError, match="needs images"):
        deblur_export.build_engine(exported(), precision="int8")
    outcome = deblur_export.build_engine(
        exported(), tmp_path / "net.engine", precision="fp16", backend="tensorrt"
    )
    assert outcome.engine is None
    assert outcome.typed.path.parent == tmp_path
    assert (tmp_path / "net.engine.json").is_file()
    assert [line.split()[0] for line in outcome.lines[-3:]] == ["trtexec", "polygraphy", "keep"]
