"""What people meet at the command line: the verbs, and every kind of bad input."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from deblur_export import cli, models
from deblur_export.artifact import Artifact
from deblur_export.export import pipeline
from deblur_export.export.pipeline import ExportOptions
from deblur_export.models.checkpoint import load_model
from tests.conftest import Exported

COMMAND = (sys.executable, "-m", "deblur_export")
CPU = ("--runtime", "onnxruntime")  # loads in a fraction of OpenVINO's time
SMALL = "1x3x30x40"
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Invoke:
    """invoke(*arguments) -> (exit code, stdout, stderr), run inside tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deblur-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2 and one line that holds the given words."""
    code, _, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert all(word in err for word in words), err


@pytest.fixture
def tiny(exported: Exported) -> Artifact:
    return exported()


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (23, 17)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_onnx_then_verify_then_run(invoke: Invoke, tmp_path: Path) -> None:
    """Of a fixed size, which is traced in a fraction of the time."""
    code, out, err = invoke("onnx", "--model", "m2aenet", "--variant", "tiny", "--shape", SMALL)
    assert (code, err) == (0, "")
    assert "using demo\n" in out
    assert "m2aenet_tiny.onnx" in out
    manifest = json.loads((tmp_path / "m2aenet_tiny.onnx.json").read_text(encoding="utf-8"))
    assert manifest["weights"]["source"] == "demo"

    photo(tmp_path / "small.png", size=(40, 30))
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "one.jpg", size=(40, 30))
    code, out, err = invoke(
        "verify", "m2aenet_tiny.onnx", "--images", "photos", "--json", "r.json", "--html", "r.html"
    )
    assert (code, err) == (0, "")
    assert "PASS: 4 cases" in out
    assert "runtime: " not in out, "its default does not depend on what is installed"
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["passed"] is True
    assert "data:image" in (tmp_path / "r.html").read_text(encoding="utf-8")

    code, out, err = invoke("run", "m2aenet_tiny.onnx", "small.png", "photos/one.jpg", "-o", "out")
    assert (code, err) == (0, "")
    assert out.startswith("runtime: "), "what was taken, and why"
    assert ", as " in out.splitlines()[0]
    for name in ("small.png", "one.jpg"):
        assert Image.open(tmp_path / "out" / name).size == (40, 30)


def test_checkpoint_is_recognised_without_a_model_name(invoke: Invoke, tmp_path: Path) -> None:
    model = load_model("nafnet", "tiny", "random:5")
    torch.save({"params": model.net.state_dict()}, tmp_path / "net.pth")
    code, out, _ = invoke("onnx", "--weights", "net.pth", "--shape", "1x3x32x32", "-o", "a.onnx")
    assert code == 0
    assert "recognised nafnet:tiny" in out


def test_failed_verification_exits_with_1_and_names_the_layer(
    invoke: Invoke, tiny: Artifact, tmp_path: Path
) -> None:
    model = onnx.load(tiny.path)
    tensor = next(i for i in model.graph.initializer if i.name == "downs.1.weight")
    values = onnx.numpy_helper.to_array(tensor) * 0.9
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, "downs.1.weight"))
    onnx.save(model, tmp_path / "wrong.onnx")
    code, out, err = invoke("verify", "wrong.onnx", "--html", "r.html")
    assert code == 1
    assert "FAIL" in out
    assert "first layer that diverges: downs.1" in err
    assert (tmp_path / "r.html").exists()


def test_random_weights_are_told(invoke: Invoke) -> None:
    """Before the export, which does not begin here."""
    result = invoke("onnx", "--model", "ufpnet", "--variant", "tiny", "-o", "no/such/a.onnx")
    assert_refused(result, "no/such", "create")
    assert "using random:0, so the result will not deblur" in result[1]


def test_ranges_then_typed_files(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp16 by measured ranges; ONNX Runtime is not asked to run what it has no kernels for."""
    traced: list[pipeline.TracedModel] = []

    def trace_once(*arguments: Any) -> pipeline.TracedModel:
        if not traced:
            traced.append(trace_model(*arguments))
        return traced[0]

    trace_model = pipeline.trace_model
    monkeypatch.setattr(pipeline, "trace_model", trace_once)
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "one.png", size=(48, 32))
    export = ("onnx", "--model", "nafnet", "--variant", "tiny", "--shape", "1x3x32x48")
    assert invoke(*export, "-o", "a.onnx")[0] == 0
    code, out, err = invoke("ranges", "a.onnx", "--images", "photos", "--json", "r.json")
    assert (code, err) == (0, "")
    assert "headroom" in out
    code, out, _ = invoke(*export, "--precision", "fp16", "--ranges", "r.json", "-o", "b.onnx")
    assert code == 0
    assert "multiply-adds" in out
    code, out, _ = invoke("run", "b.onnx", "photos/one.png", "-o", "out")
    assert code == 0
    assert out.startswith("runtime: onnxruntime")
    assert invoke(*export, "--precision", "bf16", "-o", "c.onnx")[0] == 0
    assert invoke("verify", "c.onnx")[0] == 0
    assert_refused(invoke("run", "c.onnx", "photos/one.png", *CPU), "bf16", "--runtime openvino")


def test_models_and_doctor(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "NAMES", ("m2aenet", "nafnet"))  # counting all takes a while
    code, out, _ = invoke("models")
    assert code == 0
    assert "17,437,865" in out
    code, out, _ = invoke("doctor")
    assert code == 0
    assert "onnxruntime" in out


@pytest.mark.parametrize(("arguments", "verb"), [([], "verify"), (["plugins"], "build")])
def test_help_without_arguments(invoke: Invoke, arguments: list[str], verb: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")
    assert f"\n  {verb} " in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["onnx"], ["--model"]),
        (["onnx", "--model", "m2aent"], ["m2aent", "did you mean 'm2aenet'"]),
        (["onnx", "--model", "m2aenet", "--variant", "huge"], ["huge", "base, tiny"]),
        (["onnx", "--model", "m2aenet", "--shape", "3x64x64"], ["3x64x64"]),
        (["onnx", "--model", "m2aenet", "--shape", "1x1x64x64"], ["3 channels"]),
        (["onnx", "--model", "m2aenet", "--shape", "1x3x0x64"], ["between 1"]),
        (["onnx", "--model", "m2aenet", "--target", "trt9"], ["trt9"]),
        (["onnx", "--model", "m2aenet", "--dynamic", "--shape", "1x3x8x8"], ["exclude"]),
        (["onnx", "--model", "m2aenet", "-o", "x.pb"], ["x.pb", ".onnx"]),
        (["onnx", "--model", "m2aenet", "-o", "no/such/x.onnx"], ["no/such", "create"]),
        (["onnx", "--model", "m2aenet", "--weights", "gone.pth"], ["gone.pth", "no such file"]),
        (["onnx", "--model", "m2aenet", "--weights", "random:x"], ["random:x"]),
        (["verify", "gone.onnx"], ["gone.onnx", "no such file"]),
        (["run", "gone.onnx", "a.png"], ["gone.onnx"]),
        (["run", "gone.onnx"], ["IMAGE"]),
        (["run", "gone.engine", "a.png"], ["gone.engine", "deblur-export trt"]),
        (["run", "gone.onnx", "a.png", "--runtime", "gpu"], ["gpu", "onnxruntime-cuda"]),
        (["fly"], ["fly"]),
    ],
)
def test_wrong_usage(
    invoke: Invoke, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    assert_refused(invoke(*arguments), *words)
    assert list(tmp_path.iterdir()) == []


class Exploit:
    """A pickle that would create a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_bad_checkpoints(invoke: Invoke, tmp_path: Path) -> None:
    def export(name: str) -> tuple[int, str, str]:
        return invoke("onnx", "--model", "m2aenet", "--weights", name, "-o", "out.onnx")

    state = load_model("nafnet", "tiny", "random:0").net.state_dict()
    torch.save(state, tmp_path / "nafnet.pth")
    assert_refused(export("nafnet.pth"), "missing", "looks like --model nafnet, variant tiny")

    whole = (tmp_path / "nafnet.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    assert_refused(export("cut.pth"), "truncated")

    torch.save({"weights": Exploit(tmp_path / "ran")}, tmp_path / "code.pth")
    assert_refused(export("code.pth"), "could run code")
    (tmp_path / "legacy.pth").write_bytes(pickle.dumps(Exploit(tmp_path / "ran")))
    assert_refused(export("legacy.pth"))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.onnx").exists()


def test_onnx_files_that_are_not_ours(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello", encoding="utf-8")
    assert_refused(invoke("verify", "text.onnx"), "not an ONNX file")
    foreign = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
    )
    onnx.save(foreign, tmp_path / "foreign.onnx")
    photo(tmp_path / "a.png")
    assert_refused(invoke("verify", "foreign.onnx"), "not written by deblur-export")
    assert_refused(invoke("run", "foreign.onnx", "a.png"), "not written by deblur-export")
    assert not (tmp_path / "restored" / "a.png").exists()


def test_a_small_code_page_ends_no_batch(tiny: Artifact, tmp_path: Path) -> None:
    photos = [photo(tmp_path / name) for name in ("größe.png", "模型.png", "a.png")]
    result = subprocess.run(
        [*COMMAND, "run", str(tiny.path), *map(str, photos), "-o", "out", *CPU],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        encoding="cp1252",
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert r"\u6a21\u578b.png" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in photos
    )


def test_folders_of_photos(invoke: Invoke, tiny: Artifact, tmp_path: Path) -> None:
    assert_refused(invoke("verify", tiny.path, "--images", "gone"), "gone", "no such folder")
    (tmp_path / "empty").mkdir()
    assert_refused(invoke("verify", tiny.path, "--images", "empty"), "no photos inside")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"hello", "text.png"),
        ("empty.jpg", b"", "empty"),
        ("cut.png", None, "cut.png"),
    ],
)
def test_unreadable_images(
    invoke: Invoke, tiny: Artifact, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        whole = photo(tmp_path / "whole.png", size=(90, 90)).read_bytes()
        (tmp_path / name).write_bytes(whole[:500])
    else:
        (tmp_path / name).write_bytes(content)
    assert_refused(invoke("run", tiny.path, name, "-o", "out", *CPU), words)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("size", [(1, 1), (5, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "LA", "1"])
def test_small_and_unusual_images_are_restored(
    invoke: Invoke, tiny: Artifact, tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    name = "image.jpg" if mode == "CMYK" else "image.png"
    photo(tmp_path / name, mode, size)
    code, _, err = invoke("run", tiny.path, name, "-o", "out", *CPU)
    assert (code, err) == (0, "")
    assert Image.open(tmp_path / "out" / name).size == size


def test_outputs_that_cannot_be_written(invoke: Invoke, tiny: Artifact, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert_refused(invoke("run", tiny.path, "a.png", "-o", "file", *CPU), "file")
    assert_refused(invoke("run", tiny.path, "a.png", "-o", "file/below", *CPU), "file/below")
    assert_refused(invoke("run", tiny.path, "a.png", "-o", ".", *CPU), "would overwrite")
    assert_refused(invoke("verify", tiny.path, "--json", "file/r.json"), "file/r.json")


def test_fixed_shape_restores_other_sizes_in_tiles(
    invoke: Invoke, exported: Exported, tmp_path: Path
) -> None:
    fixed = exported(model="nafnet", options=ExportOptions(shape=(1, 3, 17, 23)))
    photo(tmp_path / "fits.png")
    photo(tmp_path / "large.png", size=(30, 30))
    assert invoke("run", fixed.path, "fits.png", *CPU)[0] == 0
    code, out, err = invoke("run", fixed.path, "large.png", *CPU)
    assert code == 0, err
    assert "restored in tiles" in out + err
    with Image.open(tmp_path / "restored" / "large.png") as result:
        assert result.size == (30, 30)
    refused = invoke("run", fixed.path, "large.png", "-o", "again", "--tile", "20", *CPU)
    assert_refused(refused, "23x17", "not 20")


def test_no_disk_space_leaves_nothing(tiny: Artifact, tmp_path: Path) -> None:
    """A file-size limit of the process stands for a full disk."""
    resource = pytest.importorskip("resource", reason="this system has no limits for processes")
    photo(tmp_path / "a.png", size=(200, 200))
    limit = 2000
    result = subprocess.run(
        [*COMMAND, "run", str(tiny.path), "a.png", "-o", "out", *CPU],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        encoding="locale",
        check=False,
    )
    assert_refused((result.returncode, result.stdout, result.stderr), "out/a.png")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "onnx", "--model", "m2aenet", "--variant", "tiny", "-o", "out.onnx"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="locale",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A shell's background jobs inherit an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    # Weights are loaded, the export begins; before, there may be a line for that step.
    assert any("using demo" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    # click ends the terminal's ^C line first
    assert_refused((process.returncode, "", err.lstrip("\n")), "interrupted")
    assert list(tmp_path.iterdir()) == []
