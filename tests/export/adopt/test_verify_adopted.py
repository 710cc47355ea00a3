"""An adopted file is judged against its original, in ONNX Runtime and without any code of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import deblur_export
from deblur_export.artifact import read_artifact, sidecar_path
from deblur_export.commands.loading import PARSE
from deblur_export.errors import DeblurExportError
from deblur_export.export.parity.onnx_reference import original
from deblur_export.export.runtimes.loading import try_file
from tests import needs
from tests.conftest import Exported
from tests.export.adopt import files
from tests.test_cli import Invoke, assert_refused, invoke

__all__ = ["invoke"]  # a fixture


@pytest.fixture
def adopted(invoke: Invoke, tmp_path: Path) -> Path:
    """ours.onnx of theirs.onnx, in the folder that commands run in."""
    file = files.deep(files.File(), layers=5)
    file.save(tmp_path / "theirs.onnx")
    assert invoke("adopt", "theirs.onnx", "-o", "ours.onnx")[0] == 0
    return tmp_path / "ours.onnx"


def edit(path: Path, name: str, change: float) -> None:
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array + change).astype(array.dtype), name))
    onnx.save(model, path)


def photo_folder(folder: Path) -> Path:
    folder.mkdir()
    y, x = np.mgrid[0:280, 0:300] / 300
    for number in range(3):
        waves = [np.sin((5 + number) * y + k) * np.cos(7 * x - k) for k in range(3)]
        noise = np.random.default_rng(number).random((280, 300, 3))
        pixels = 0.5 + 0.3 * np.stack(waves, -1) + 0.2 * (noise - 0.5)
        Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
    return folder


def test_a_wrong_weight_is_named(adopted: Path, invoke: Invoke) -> None:
    edit(adopted, "layer2.bias", 0.01)
    code, _, err = invoke("verify", "ours.onnx")
    assert code == 1
    assert "ours.onnx does not match theirs.onnx" in err
    assert "first layer that diverges: layer2" in err


def test_a_wrong_weight_of_a_typed_file_is_named(adopted: Path, invoke: Invoke) -> None:
    """Within the tolerances of float16, and told by the graph without roundings."""
    assert invoke("adopt", "theirs.onnx", "--precision", "fp16", "-o", "half.onnx")[0] == 0
    edit(adopted.with_name("half.onnx"), "layer2.bias", 4e-3)
    code, _, err = invoke("verify", "half.onnx", "--min-psnr", "0")
    assert code == 1 and "without roundings" in err and "diverges: layer2" in err


def test_the_original_must_be_there_and_unchanged(adopted: Path, invoke: Invoke) -> None:
    theirs = adopted.with_name("theirs.onnx")
    theirs.rename(adopted.with_name("moved.onnx"))
    assert_refused(invoke("verify", "ours.onnx"), "theirs.onnx", "not there", "--against FILE")
    code, out, _ = invoke("verify", "ours.onnx", "--against", "moved.onnx")
    assert code == 0 and "is not the file" not in out
    adopted.with_name("moved.onnx").rename(theirs)
    edit(theirs, "layer2.bias", 1e-2)
    assert_refused(invoke("verify", "ours.onnx"), "not the file", "SHA-256", "--against")
    code, out, err = invoke("verify", "ours.onnx", "--against", "theirs.onnx")
    assert code == 1 and "diverges: layer2" in err
    assert "theirs.onnx is not the file that ours.onnx was adopted from" in out


def test_a_manifest_cannot_make_verify_run_code(adopted: Path, invoke: Invoke) -> None:
    """`where` is read as an ONNX file, whatever it names."""
    folder = adopted.parent
    (folder / "evil.py").write_text("open('ran', 'w').close()", encoding="utf-8")
    for where in ("evil.py", "evil", "evil:Net"):
        model = onnx.load(adopted)
        (entry,) = (e for e in model.metadata_props if e.key == "deblur_export")
        manifest = json.loads(entry.value)
        manifest["model"]["where"] = where
        entry.value = json.dumps(manifest)
        sidecar_path(adopted).unlink(missing_ok=True)
        onnx.save(model, adopted)
        assert_refused(invoke("verify", "ours.onnx"), "evil")
    assert not (folder / "ran").exists()


def test_ends_in_a_manifest_that_fit_nothing(adopted: Path, invoke: Invoke) -> None:
    model = onnx.load(adopted)
    (entry,) = (e for e in model.metadata_props if e.key == "deblur_export")
    manifest = json.loads(entry.value)
    manifest["model"]["arguments"]["axes"] = "sideways"
    entry.value = json.dumps(manifest)
    onnx.save(model, adopted)
    assert_refused(invoke("verify", "ours.onnx"), "ours.onnx", "axes", "adopt it again")


def test_options_of_networks_are_refused(adopted: Path, invoke: Invoke) -> None:
    assert_refused(invoke("verify", "ours.onnx", "--weights", "a.pth"), "--against FILE")
    assert_refused(invoke("verify", "ours.onnx", "--float64"), "leave --float64 out")
    assert_refused(invoke("verify", "ours.onnx", "--against", "none.onnx"), "no such file")
    assert_refused(invoke("verify", "ours.onnx", "--against", "ours.onnx"), "the file itself")


def test_against_another_file_of_a_network(exported: Exported, tmp_path: Path) -> None:
    """A file of a PyTorch network is compared with any file, ours or not."""
    artifact = exported("nafnet")
    plain = tmp_path / "plain.onnx"
    model = onnx.load(artifact.path)
    del model.metadata_props[:]
    onnx.save(model, plain)
    with pytest.raises(DeblurExportError, match="the file itself"):
        deblur_export.verify(artifact, against=artifact.path)
    assert deblur_export.verify(artifact, against=plain).passed
    edit(plain, "ending.bias", 1e-3)
    assert not deblur_export.verify(artifact, against=plain).passed
    ours = deblur_export.adopt(files.doubling(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    with pytest.raises(DeblurExportError, match="scale 2"):
        deblur_export.verify(artifact, against=ours.path)


def test_layers_are_compared(adopted: Path) -> None:
    artifact = read_artifact(adopted)
    theirs = artifact.manifest.model
    assert theirs.where == "theirs.onnx"
    image = np.full((1, 3, 16, 16), 0.5, np.float32)
    names = original(artifact).layers(image)
    assert {"head", "layer0", "active0", "y"} <= names
    found = original(artifact).run_layers(image, ["layer0", "head"])
    assert found["head"].shape == (1, 8, 16, 16)


def test_int8_and_photos(adopted: Path, invoke: Invoke) -> None:
    folder = photo_folder(adopted.parent / "photos")
    made = ("--precision", "int8", "--images", "photos", "-o", "int8.onnx")
    assert invoke("adopt", "theirs.onnx", *made)[0] == 0
    artifact = read_artifact(adopted.with_name("int8.onnx"))
    assert artifact.manifest.int8_layers >= 4
    code, out, _ = invoke("verify", "int8.onnx", "--images", "photos")
    assert code == 0 and "without its roundings, the graph differs from theirs.onnx" in out
    assert invoke("run", "int8.onnx", folder / "0.png", "--runtime", "onnxruntime")[0] == 0
    assert Image.open(adopted.parent / "restored/0.png").size == (300, 280)
    edit(artifact.path, "layer1.bias", 0.01)
    assert invoke("verify", "int8.onnx")[0] == 1


def test_openvino(tmp_path: Path) -> None:
    needs.OPENVINO.require()
    for make in (files.strided, files.nhwc, files.old_ir, files.grey, files.branch):
        make(tmp_path / "theirs.onnx")
        artifact = deblur_export.adopt(tmp_path / "theirs.onnx", tmp_path / "ours.onnx")
        assert deblur_export.verify(artifact, runtime="openvino").passed
        assert "Identity" not in {node.op_type for node in artifact.proto.graph.node}


def test_rtx_parses(tmp_path: Path) -> None:
    if not needs.RTX.installed():
        pytest.skip(needs.RTX.reason)
    for make, precision in ((files.strided, "fp32"), (files.nhwc, "fp16")):
        make(tmp_path / "theirs.onnx")
        path = deblur_export.adopt(
            tmp_path / "theirs.onnx",
            tmp_path / "ours.onnx",
            precision=precision,  # type: ignore[arg-type]
        ).path
        finding = try_file("parser", "tensorrt-rtx", PARSE, path, "rtx")
        assert finding.works, finding.note
