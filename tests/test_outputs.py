"""No command overwrites what it reads, nor one of its outputs with another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import deblur_export
from deblur_export import outputs
from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint import load_model
from deblur_export.outputs import check_outputs
from tests.conftest import Exported
from tests.models.training.small_dataset import write_dataset
from tests.test_cli import Invoke, assert_refused, invoke, photo

__all__ = ["invoke"]  # a fixture


def refused(writes: Mapping[str, Path], *reads: Path, **options: Any) -> str:
    with pytest.raises(DeblurExportError) as caught:
        check_outputs(writes.items(), reads, **options)
    return str(caught.value)


def test_an_input_is_found_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    source = tmp_path / "a.png"
    source.touch()
    (tmp_path / "link.png").symlink_to(source)
    (tmp_path / "hard.png").hardlink_to(source)
    relative = Path(os.path.relpath(source))
    for path in (source, tmp_path / "sub/../a.png", tmp_path / "link.png", relative):
        assert "the result would overwrite this file" in refused({"the result": path}, source)
        assert "the result would overwrite" in refused({"the result": source}, path)
    assert "overwrite" in refused({"the result": tmp_path / "hard.png"}, source)
    check_outputs([("the result", tmp_path / "b.png"), ("the other", None)], [source, None])


def test_outputs_of_the_same_name(tmp_path: Path) -> None:
    twice = {"the JSON": tmp_path / "a.json", "the page": tmp_path / "." / "a.json"}
    assert "the JSON and the page would both be this file; rename" in refused(
        twice, advice="rename"
    )


def test_letters_of_another_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the file systems of Windows and macOS; here they are two files."""
    pair = {"one": tmp_path / "cafe\N{COMBINING ACUTE ACCENT}.png", "two": tmp_path / "CAFÉ.PNG"}
    check_outputs(pair.items(), [])
    assert not outputs._ignores_case(tmp_path)
    monkeypatch.setattr(outputs, "_ignores_case", lambda folder: True)
    assert "one and two would both" in refused(pair)
    assert "would overwrite" in refused({"one": tmp_path / "a.png"}, tmp_path / "A.png")


def test_a_file_system_that_ignores_case_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "A.PNG").hardlink_to(tmp_path / "a.png")  # what such a file system shows
    assert outputs._ignores_case(tmp_path)


def test_what_lies_in_a_folder_that_is_read(tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/net.onnx", "data/train/mask.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert "overwrite" in refused({"the plot": tmp_path / "photos/a.png"}, tmp_path / "photos")
    assert "overwrite" in refused({"x": tmp_path / "data/train/mask.npy"}, tmp_path / "data")
    check_outputs([("the file", tmp_path / "photos/net.onnx")], [tmp_path / "photos"])
    check_outputs([("the plot", tmp_path / "photos/new.png")], [tmp_path / "photos"])


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    said = {
        "is a folder": tmp_path,
        "not an ordinary file": Path("/dev/null"),
        "no such folder; create it first": tmp_path / "no/a.json",
        "no such folder": tmp_path / "file/a.json",
        "name too long": tmp_path / f"{'a' * 300}.json",
        "not a usable path": tmp_path / "loop",
    }
    for words, path in said.items():
        assert words in refused({"the report": path})
    check_outputs([("the report", tmp_path / "no/a.json")], makes_folders=True)
    below = tmp_path / "file/a.json"
    assert "no such folder can be made" in refused({"the report": below}, makes_folders=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission" in refused({"the report": tmp_path / "a.json"})


@pytest.fixture
def place(exported: Exported, tmp_path: Path) -> Path:
    """Files of every kind that a verb reads: net.onnx with its manifest and external data, its
    weights, photos, a dataset."""
    model = load_model("nafnet", "tiny", "random:0")
    torch.save(model.net.state_dict(), tmp_path / "net.pth")
    source = exported("nafnet")
    shutil.copy(source.path, tmp_path / "net.onnx")
    shutil.copy(f"{source.path}.json", tmp_path / "net.onnx.json")
    outside = onnx.load(source.path)
    onnx.save(
        outside, tmp_path / "far.onnx", save_as_external_data=True, location="far.data",
        size_threshold=0,
    )  # fmt: skip
    for name in ("photos", "run", "masks"):
        (tmp_path / name).mkdir()
    for name in ("photos/a.png", "photos/a_mask.png"):
        photo(tmp_path / name)
    shutil.copy(tmp_path / "net.pth", tmp_path / "run/best.safetensors")
    write_dataset(tmp_path / "data")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


NET = ("--model", "nafnet", "--variant", "tiny", "--weights", "net.pth")
LINES = (
    "verify net.onnx --json net.onnx",
    "verify net.onnx --json net.onnx.json",
    "verify net.onnx --html ./photos/../net.onnx",
    "verify net.onnx --json r --html r",
    "verify net.onnx --images photos --html photos/a.png",
    "verify net.onnx --weights net.pth --json net.pth",
    "verify net.onnx --pairs data --json data/val/mask.npy",
    "verify far.onnx --json far.data",
    "ranges net.onnx --images photos --json net.onnx",
    "ranges net.onnx --images photos --json r --plot r",
    "ranges net.onnx --images photos --plot photos/a.png",
    "calibrate net.onnx --images photos -o net.onnx",
    "calibrate net.onnx --images photos -o q.onnx --plot q.onnx",
    "calibrate net.onnx --images photos -o q.onnx --plot q.onnx.json",
    "calibrate net.onnx --images photos --plot photos/a.png",
    "onnx --weights net.pth --model nafnet -o far.onnx --ranges far.onnx --precision fp16",
    "onnx --weights net.pth --model nafnet -o r.onnx --ranges r.onnx.json --precision fp16",
    "trt net.onnx --fp16 --timing-cache net.onnx",
    "trt net.onnx --fp16 --timing-cache net_fp16.onnx",
    "trt net.onnx --fp16 --timing-cache net_fp16.onnx.json",
    "trt net.onnx --fp16 --timing-cache net_fp16.engine",
    "trt net.onnx --fp16 -o net.pth --plugins net.pth",
    "trt --model nafnet --weights net.pth --fp16 -o net.pth",
    "bench net.onnx --json net.onnx",
    "bench net.onnx --json net.onnx.json",
    "bench net.onnx --json r.png --plot r.png --size 32x32 --size 64x64",
    "pairs --photos photos --sheet photos/a.png",
    "train --model nafnet --dataset data -o run --steps 1 --init-from run/best.safetensors",
    "run net.onnx photos/a.png -o photos",
    "run net.onnx photos -o photos --overwrite",
)


@pytest.mark.parametrize("line", LINES)
def test_every_verb(
    line: str, place: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.set_flush_denormal", lambda _: True)
    if "init-from" in line:
        from safetensors.torch import save_file

        save_file(torch.load(place / "net.pth"), place / "run/best.safetensors")
    before = content(place)
    code, _, err = result = invoke(*line.split())
    assert_refused(result)
    assert code == 2 and ("would overwrite" in err or "would both be" in err), err
    assert content(place) == before


def test_a_mask_over_a_result(exported: Exported, tmp_path: Path, invoke: Invoke) -> None:
    for name in ("a_mask.png", "a.png"):
        photo(tmp_path / name)
    line = ("run", exported().path, "a_mask.png", "a.png", "-o", "o", "--mask")
    assert_refused(invoke(*line), "the result of a_mask.png and the mask of a.png would both be")
    assert not (tmp_path / "o").exists()
    line = ("run", exported().path, "a.png", "-o", ".", "--format", "jpg", "--mask", "--overwrite")
    (tmp_path / "a_mask.png").rename(tmp_path / "b.png")
    assert invoke(*line)[0] == 0 and (tmp_path / "a_mask.png").exists()


def test_the_python_functions(place: Path) -> None:
    net, before = place / "net.onnx", content(place)
    model = load_model("nafnet", None, str(place / "net.pth"))
    calls = (
        lambda: deblur_export.verify(net, json=net),
        lambda: deblur_export.verify(net, json=place / "r", html=place / "r"),
        lambda: deblur_export.calibrate(net, net, images=place / "photos"),
        lambda: deblur_export.export_onnx(model, net, precision="fp16", ranges=net),
        lambda: deblur_export.build_engine(net, precision="fp16", timing_cache=net),
        lambda: deblur_export.open_session(net, runtime="onnxruntime").restore_file(
            place / "photos/a.png", place / "photos/a.png"
        ),
        lambda: deblur_export.open_session(net, runtime="onnxruntime").restore_file(
            place / "photos/a.png", place / "net.onnx"
        ),
    )
    for call in calls:
        with pytest.raises(DeblurExportError, match=r"would overwrite|would both be"):
            call()
        assert content(place) == before
