"""`artifact.read_artifact`: files as other tools and damaged disks leave them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import deblur_export
from deblur_export.artifact import (
    METADATA_KEY,
    file_sha256,
    read_artifact,
    sidecar_path,
    write_sidecar,
)
from deblur_export.errors import DeblurExportError
from tests.conftest import Exported
from tests.test_cli import CPU, Invoke, assert_refused, invoke

__all__ = ["invoke"]  # a fixture
Edit = Callable[[onnx.ModelProto], object]


def drop_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def rewrite(model: onnx.ModelProto) -> None:
    model.doc_string = "edited"


@pytest.fixture
def net(exported: Exported, tmp_path: Path) -> Path:
    """An exported file with its manifest beside it; of nafnet, in one's own folder."""
    source = exported("nafnet").path
    shutil.copy(sidecar_path(source), tmp_path / "net.onnx.json")
    return Path(shutil.copy(source, tmp_path / "net.onnx"))


def edit(path: Path, change: Edit, **options: Any) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path, **options)


def refusal(path: Path) -> str:
    with pytest.raises(DeblurExportError) as caught:
        read_artifact(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rewrite, "its SHA-256 is not that in net.onnx.json"),
        (
            drop_metadata,
            "the manifest inside is gone or damaged, and net.onnx.json takes its place",
        ),
        (lambda m: setattr(m.metadata_props[0], "value", "{"), "gone or damaged"),
    ],
    ids=["rewritten", "metadata dropped", "metadata damaged"],
)
def test_an_edited_file_is_said_and_judged(
    net: Path, invoke: Invoke, tmp_path: Path, change: Edit, words: str
) -> None:
    before = read_artifact(net)
    edit(net, change)
    found = read_artifact(net)
    assert found.manifest == replace(before.manifest, file=None, parity=None)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    code, out, err = invoke("run", net, "a.png", *CPU)
    assert (code, err) == (0, "")
    assert "note: net.onnx was edited after its export (" in out and words in out
    assert any(words in note for note in deblur_export.open_session(net).notes)
    code, out, _ = invoke("verify", net)
    assert code == 0 and words in out
    assert "edited" not in invoke("run", net, "a.png", *CPU)[1], "verify has judged it"
    manifest = read_artifact(net).manifest
    assert manifest.parity is not None and manifest.model == before.manifest.model


def test_metadata_and_sidecar_gone(net: Path) -> None:
    edit(net, drop_metadata)
    sidecar_path(net).unlink()
    message = refusal(net)
    assert "a tool has dropped its metadata" in message and "net.onnx.json" in message


def test_a_sidecar_of_an_engine_describes_no_onnx_file(net: Path) -> None:
    from tests.test_manifest import KINDS

    write_sidecar(net, KINDS["engine"])
    assert read_artifact(net).notes == ()
    edit(net, drop_metadata)
    assert "not written by deblur-export" in refusal(net)


def test_opset_and_custom_ops_are_those_of_an_edited_graph(
    exported: Exported, tmp_path: Path
) -> None:
    artifact = exported("m2aenet")
    net = Path(shutil.copy(artifact.path, tmp_path / "net.onnx"))
    shutil.copy(sidecar_path(artifact.path), sidecar_path(net))
    onnx.save(onnx.inliner.inline_local_functions(onnx.load(net)), net)
    manifest = read_artifact(net).manifest
    assert artifact.manifest.custom_ops and manifest.custom_ops == ()
    assert manifest.opset == artifact.manifest.opset


def test_custom_ops_without_their_bodies(exported: Exported, tmp_path: Path) -> None:
    net = Path(shutil.copy(exported("m2aenet").path, tmp_path / "net.onnx"))
    edit(net, lambda model: model.ClearField("functions"))
    message = refusal(net)
    assert "dropped the bodies of its custom ops (MotionDeformConv, PrunedConv" in message
    assert "--inline" in message


def rename_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
    model.graph.input[0].name = "x"


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Identity", input=["restored"], output=["y"])
    model.graph.output[0].name = "y"


def fix_size(model: onnx.ModelProto) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, 3, 64, 48), strict=True):
        dim.dim_value = size


def half_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def another_input(model: onnx.ModelProto) -> None:
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "mask"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_input, "its input is x, and image in its manifest"),
        (rename_output, "its output is y, and restored in its manifest"),
        (fix_size, "its input is 1x3x64x48, and batchx3xheightxwidth in its manifest"),
        (half_input, "its input is float16, and float32 in its manifest"),
        (another_input, "its input is image, mask, and image in its manifest"),
    ],
)
def test_another_interface(net: Path, change: Edit, words: str) -> None:
    edit(net, change)
    message = refusal(net)
    assert words in message and "export it again, with --shape" in message


def test_weights_in_another_file(net: Path) -> None:
    before = read_artifact(net)
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    edit(net, rewrite, **options)
    artifact = read_artifact(net)
    assert artifact.weight_files == (net.with_name("w.bin"),)
    assert artifact.sha256 == file_sha256(net, net.with_name("w.bin"))
    assert len(artifact.content) > len(before.content) - 1000, "weights for TensorRT's parser"
    for old, new in zip(
        before.proto.graph.initializer, artifact.proto.graph.initializer, strict=True
    ):
        assert (numpy_helper.to_array(old) == numpy_helper.to_array(new)).all()
    assert deblur_export.verify(net, runtime="onnxruntime").passed
    assert read_artifact(net).notes == ()
    content = net.with_name("w.bin").read_bytes()
    net.with_name("w.bin").write_bytes(content[:-1] + b"\x7f")
    assert "was edited" in read_artifact(net).notes[0], "the hash is of both files"
    net.with_name("w.bin").write_bytes(content[:100])
    assert "cannot be read" in refusal(net) or "damaged" in refusal(net)
    net.with_name("w.bin").unlink()
    assert "its weights are in w.bin, which is not beside it; copy both" in refusal(net)


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "x" * 300, "", "a\x00b"])
def test_weights_in_a_strange_place(net: Path, location: str) -> None:
    def elsewhere(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    net.with_name("w.bin").write_bytes(bytes(10))
    edit(net, elsewhere)
    assert "its weights" in refusal(net)


@pytest.mark.parametrize("strange", [b"\xff", b"\x1b", b"\n"])
def test_names_that_are_no_text(net: Path, strange: bytes) -> None:
    content = net.read_bytes()
    net.write_bytes(content.replace(b"encoders.0.0.conv1", b"encoders.0.0.conv" + strange))
    assert "is no text" in refusal(net)


def test_a_graph_that_is_no_graph(net: Path) -> None:
    edit(net, lambda model: model.graph.node.pop(3))
    assert "a damaged ONNX file: Nodes in a graph must be topologically sorted" in refusal(net)


@pytest.mark.parametrize("verb", [("verify",), ("run", "a.png"), ("trt",), ("bench",), ("doctor",)])
def test_names_of_300_characters(verb: tuple[str, ...], invoke: Invoke) -> None:
    name = "n" * 300 + ".onnx"
    result = invoke(verb[0], name, *verb[1:])
    assert_refused(result)
    assert "no such file" in result[2] or "File name too long" in result[2]


def test_weights_named_by_300_characters_in_a_manifest(net: Path) -> None:
    model = onnx.load(net)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    document = json.loads(entry.value)
    document["weights"]["source"] = "w" * 300
    entry.value = json.dumps(document)
    onnx.save(model, net)
    with pytest.raises(DeblurExportError, match=r"the weights of net|not a usable path"):
        deblur_export.verify(net)
