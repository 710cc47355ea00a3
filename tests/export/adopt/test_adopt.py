"""Files of other exporters through the line: adopted, verified, cast and verified again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from rich.console import Console

import deblur_export
from deblur_export.artifact import Artifact, read_artifact
from deblur_export.calibration.qdq import find_quantizable
from deblur_export.commands.facts import facts_table
from deblur_export.export.parity.report import ParityReport
from deblur_export.manifest import Manifest
from tests.export.adopt import files

Make = Callable[[Path], Path]
ALL: dict[str, tuple[Make, dict[str, Any], dict[str, object]]] = {
    "free": (files.plain, {}, {"size": "any", "batch": "any", "multiple": 1, "field": 2}),
    "fixed": (files.fixed, {}, {"size": "32x24", "batch": 1, "period": 32}),
    "a free file for one size": (files.strided, {"shape": (1, 3, 30, 21)}, {"size": "21x30"}),
    "axes": (files.nhwc, {}, {"axes": "NHWC", "size": "any"}),
    "range": (files.residual, {"value_range": (-1.0, 1.0)}, {"range": [-1, 1]}),
    "colour": (files.plain, {"colour": "BGR", "value_range": (0.0, 255.0)}, {"colour": "BGR"}),
    "another range of the result": (files.plain, {"output_range": (-1.0, 1.0)}, {"range": [0, 1]}),
    "reflection": (files.strided, {"padding": "reflect"}, {"padding": "reflect"}),
    "scale 2": (files.doubling, {}, {"scale": 2}),
    "grey": (files.grey, {}, {"channels": 1, "colour": "grey"}),
    "multiple": (files.strided, {}, {"multiple": 8, "field": 0}),
    "two outputs": (files.two_outputs, {}, {"output": "y"}),
    "external data": (files.external, {}, {}),
    "opset 11": (files.opset(11), {}, {"opset": 11}),
    "opset 13": (files.opset(13), {}, {"opset": 13}),
    "opset 21": (files.opset(21), {}, {"opset": 21}),
    "IR 3": (files.old_ir, {}, {"opset": 9}),
    "float16": (files.half, {}, {"type": "float32"}),
    "bytes": (files.bytes_in_and_out, {}, {"type": "uint8", "range": [0, 255]}),
    "our names": (files.our_names, {}, {"input": "image", "output": "padding/size"}),
    "constants as nodes": (files.constants_as_nodes, {}, {}),
    "computed weights": (files.computed_weights, {}, {}),
    "a function": (files.function, {}, {}),
    "another domain": (files.foreign, {}, {"other operators": ["com.microsoft::QuickGelu"]}),
    "a branch": (files.branch, {}, {}),
    "float64 inside": (files.double_inside, {}, {}),
}


def worst(report: ParityReport) -> float:
    return max(case.max_abs for case in report.cases)


@pytest.mark.parametrize("name", ALL)
def test_the_line(name: str, tmp_path: Path) -> None:
    make, given, facts = ALL[name]
    source = make(tmp_path / "theirs.onnx")
    artifact = deblur_export.adopt(source, tmp_path / "ours.onnx", **given)
    found = {key: artifact.manifest.facts[key].value for key in facts}
    assert found == facts
    report = deblur_export.verify(tmp_path / "ours.onnx")
    assert report.passed and worst(report) <= 1e-6
    assert "theirs.onnx" in report.reference
    typed = deblur_export.adopt(source, tmp_path / "half.onnx", precision="fp16", **given)
    assert typed.manifest.precision == "fp16" and typed.manifest.precision_map is not None
    cast = deblur_export.verify(typed)
    assert cast.passed and worst(cast) > 0
    assert all((case.without_rounding or 0.0) <= 1e-6 for case in cast.cases)


def test_the_outward_form(tmp_path: Path) -> None:
    """Whatever the original wants: NHWC, BGR, -1..1 and multiples of 8 are the graph's affair."""
    files.strided(tmp_path / "a.onnx")
    artifact = deblur_export.adopt(
        tmp_path / "a.onnx", tmp_path / "b.onnx", value_range=(-1.0, 1.0), colour="BGR"
    )
    image = np.random.default_rng(0).random((2, 3, 13, 21), np.float32)
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["restored"], {"image": image})
    padded = np.zeros((2, 3, 16, 24), np.float32)
    padded[:, :, :13, :21] = image
    original = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (expected,) = original.run(["y"], {"x": padded[:, ::-1] * 2 - 1})
    expected = (expected[:, ::-1, :13, :21] + 1) / 2
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-6
    assert artifact.manifest.input.multiple == 8 and artifact.manifest.input.colour == "RGB"


def test_the_manifest(tmp_path: Path) -> None:
    source = files.plain(tmp_path / "theirs.onnx")
    artifact = read_artifact(deblur_export.adopt(source, tmp_path / "ours.onnx").path)
    model = artifact.manifest.model
    assert (model.origin, model.name, model.where) == ("onnx", "theirs", str(source))
    assert model.source_sha256 == artifact.manifest.weights.sha256
    assert {fact.by for fact in artifact.manifest.facts.values()} == {"found", "assumed"}
    assert artifact.manifest.facts["range"].by == "assumed"
    assert artifact.manifest.tile.proved and artifact.manifest.tile.field == 2
    again = Manifest.from_json(artifact.manifest.to_json(), "again")
    assert again == artifact.manifest


def test_names_are_kept_and_nodes_have_names(tmp_path: Path) -> None:
    artifact = deblur_export.adopt(files.plain(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    nodes = artifact.proto.graph.node
    assert [node.output[0] for node in nodes[:2]] == ["features", "active"]
    assert all(node.name for node in nodes)
    assert {w.name for w in artifact.proto.graph.initializer} >= {"y.weight", "features.bias"}


def test_weights_that_are_computed_become_constants(tmp_path: Path) -> None:
    """Only convolutions of constant weights can be int8."""
    source = files.computed_weights(tmp_path / "a.onnx")
    artifact = deblur_export.adopt(source, tmp_path / "b.onnx")
    assert len(find_quantizable(artifact.proto)) == 5
    assert "Transpose" not in {node.op_type for node in artifact.proto.graph.node}


def test_a_name_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of a file are printed as they are."""
    name = "x[/red]"
    source = files.body(files.File(), name).save(tmp_path / "a.onnx", files.value(name))
    artifact = deblur_export.adopt(source, tmp_path / "b.onnx")
    Console(width=200).print(facts_table("a[/b]", artifact.manifest.facts))
    printed = capsys.readouterr().out
    assert name in printed and "a[/b]" in printed


def test_a_further_input_gets_a_value(tmp_path: Path) -> None:
    file = files.File()
    file.add("Mul", ["x", "sigma"], "scaled")
    files.body(file, "scaled")
    source = file.save(tmp_path / "a.onnx", further=[files.value("sigma", shape=(1,))])
    artifact = deblur_export.adopt(source, tmp_path / "b.onnx", values={"sigma": 0.5})
    assert [value.name for value in artifact.proto.graph.input] == ["image"]
    assert deblur_export.verify(artifact).passed


@pytest.mark.parametrize(("change", "doubted"), [(0.2, True), (0.05, False)])
def test_a_doubtful_range_is_said(change: float, doubted: bool, tmp_path: Path) -> None:
    """A change that is a fifth of an image in 0..1 is little of one in 0..255."""
    file = files.File()
    file.add("Add", ["x", file.constant("change", np.float32(change))], "y")
    source = file.save(tmp_path / "a.onnx")

    def notes(**given: Any) -> str:
        return "\n".join(deblur_export.adopt(source, tmp_path / "b.onnx", **given).notes)

    assert ("perhaps it wants --range 0,255" in notes()) == doubted
    assert "perhaps" not in notes(value_range=(0.0, 1.0))


def test_notes(tmp_path: Path) -> None:
    def notes(make: Make) -> str:
        artifact: Artifact = deblur_export.adopt(make(tmp_path / "a.onnx"), tmp_path / "b.onnx")
        return "\n".join(artifact.notes)

    assert "OpenVINO and TensorRT will refuse the file" in notes(files.foreign)
    assert "float16 numbers are float32 numbers" in notes(files.half)
    assert "stays in opset 21" in notes(files.opset(21))
    file = files.body(files.File())
    file.add("GlobalAveragePool", ["y"], "mean")
    file.add("Add", ["y", "mean"], "z")
    pooled = file.save(tmp_path / "c.onnx", outputs=[files.value("z")])
    artifact = deblur_export.adopt(pooled, tmp_path / "d.onnx")
    assert artifact.manifest.tile.field is None
    assert any("depends on the whole image" in note for note in artifact.notes)


def test_a_batch_that_is_mixed_is_one_image(tmp_path: Path) -> None:
    """The batch is declared free, but two images at once give something else."""
    file = files.body(files.File())
    file.add("ReduceMean", ["y"], "mean", axes=[0, 1, 2, 3], keepdims=1)
    file.add("Add", ["y", "mean"], "z")
    source = file.save(tmp_path / "a.onnx", outputs=[files.value("z")])
    artifact = deblur_export.adopt(source, tmp_path / "b.onnx")
    assert artifact.manifest.free == ("height", "width")
    assert artifact.manifest.input.batch == 1
    assert deblur_export.verify(artifact).passed


def padding_inside(path: Path) -> Path:
    """Accepts any size: it pads to multiples of 4 and crops, so that tiles have to begin there."""
    file = files.File()
    file.add("Shape", ["x"], "sizes", start=2, end=4)
    file.add("Neg", ["sizes"], "less")
    file.add("Mod", ["less", file.constant("four", np.int64(4))], "missing")
    file.add("Concat", [file.constant("none", np.zeros(6, np.int64)), "missing"], "pads", axis=0)
    file.add("Pad", ["x", "pads"], "padded")
    file.conv("padded", "down", (3, 8), kernel=4, strides=[4, 4])
    file.conv("down", "up", (8, 3), "ConvTranspose", kernel=4, strides=[4, 4])
    file.constant("start", np.zeros(2, np.int64))
    file.constant("axes", np.array([2, 3], np.int64))
    file.add("Slice", ["up", "start", "sizes", "axes"], "y")
    return file.save(path)


def test_the_period_of_a_network_that_pads_inside(tmp_path: Path) -> None:
    source = padding_inside(tmp_path / "a.onnx")
    manifest = deblur_export.adopt(source, tmp_path / "b.onnx").manifest
    assert manifest.input.multiple == 1
    assert (manifest.tile.period, manifest.tile.proved) == (4, True)


def test_the_field_of_a_file_of_one_size(tmp_path: Path) -> None:
    """It cannot be proved; what was seen, 2, and the block of 8 that was changed."""
    source = files.plain(tmp_path / "a.onnx", input=files.value("x", shape=(1, 3, 64, 96)))
    tile = deblur_export.adopt(source, tmp_path / "b.onnx").manifest.tile
    assert (tile.field, tile.period, tile.proved) == (10, 32, False)


def test_only_squares(tmp_path: Path) -> None:
    file = files.body(files.File())
    file.add("Transpose", ["y"], "turned", perm=[0, 1, 3, 2])
    file.add("Add", ["y", "turned"], "z")
    source = file.save(tmp_path / "a.onnx", outputs=[files.value("z")])
    artifact = deblur_export.adopt(source, tmp_path / "b.onnx")
    assert artifact.manifest.input.square
    assert deblur_export.verify(artifact).passed


def test_the_adopted_file_is_valid_alone(tmp_path: Path) -> None:
    """External weights are inside, and the graph passes ONNX's checker."""
    source = files.external(tmp_path / "a.onnx")
    path = deblur_export.adopt(source, tmp_path / "b.onnx").path
    (tmp_path / "weights.bin").unlink()
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert read_artifact(path).weight_files == ()
