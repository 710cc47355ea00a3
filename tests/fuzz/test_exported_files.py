"""Damaged ONNX files and manifests: refused in one line, or harmless, by every verb that reads
them; never an internal error, never a picture with NaN."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import deblur_export
from deblur_export.artifact import METADATA_KEY, ModelFile, sidecar_path, write_sidecar
from deblur_export.errors import DeblurExportError
from deblur_export.export.pipeline import ExportOptions
from deblur_export.manifest_blocks import FileRecord
from tests import needs
from tests.conftest import Exported
from tests.fuzz.damage import damaged_bytes, damaged_graph, damaged_manifest
from tests.fuzz.seeds import FIRST, seeds
from tests.test_cli import CPU, Invoke, invoke, photo

__all__ = ["invoke"]  # a fixture
pytestmark = pytest.mark.fuzz
SHAPE = (1, 3, 32, 48)
RUNTIMES = ("onnxruntime", *(("openvino",) if needs.OPENVINO.installed() else ()))
# The dearer a verb, the rarer: for one in so many seeds, from which on.
VERBS = {
    ("run", "{net}", "photos/a.png", *CPU): (2, 1),
    ("verify", "{net}", *CPU): (2, 0),
    ("ranges", "{net}", "--images", "photos"): (4, 0),
    ("trt", "{net}", "--backend", "rtx", "--fp16"): (16, 3),
    ("calibrate", "{net}", "--images", "photos", "--crop", "16", "-o", "q.onnx"): (64, 10),
    ("doctor", "{net}"): (64, 18),
    ("bench", "{net}", "--candidates", "ort-optimized", "--seconds", "0"): (64, 30),
}


@pytest.fixture(params=["nafnet", "m2aenet"])
def source(request: pytest.FixtureRequest, exported: Exported) -> Path:
    """Of a fixed size, which loads and runs in milliseconds; with custom ops and without."""
    return exported(request.param, options=ExportOptions(shape=SHAPE)).path


@pytest.fixture
def net(source: Path, tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "a.png", size=SHAPE[:1:-1])
    return tmp_path / "net.onnx"


def check_verbs(invoke: Invoke, net: Path, seed: int) -> None:
    """No verb has an internal error; each says in one line what is wrong, or does its work."""
    for verb, (every, start) in VERBS.items():
        if (seed - FIRST) % every != start:
            continue
        if verb[0] == "trt" and not needs.RTX.installed():
            continue
        code, out, err = invoke(*(str(net) if word == "{net}" else word for word in verb))
        where = f"seed {seed}, {verb[0]}: {err}"
        assert code in (0, 1, 2) and "internal error" not in err and "Traceback" not in err, where
        assert code == 0 or sum(line.startswith("error: ") for line in err.splitlines()) == 1, where
        assert "\x1b" not in out + err, where


def check_picture(net: Path, seed: int) -> None:
    """What comes back is finite and of the expected shape, or nothing comes back."""
    image = np.random.default_rng(seed).random((*SHAPE[2:], 3), np.float32)
    runtime = RUNTIMES[seed % 3 == 0 and len(RUNTIMES) - 1]
    try:
        restored = deblur_export.open_session(net, runtime=runtime)(image)
    except DeblurExportError as error:
        assert str(error) and "\n" not in str(error).strip(), f"seed {seed}: {error}"
        return
    assert restored.shape == image.shape and np.isfinite(restored).all(), f"seed {seed}"


def beside(rng: random.Random, source: Path, net: Path) -> None:
    """No manifest beside a damaged file, that of the undamaged one, or one with its hash."""
    sidecar = sidecar_path(net)
    sidecar.unlink(missing_ok=True)
    match rng.randrange(3):
        case 0:
            shutil.copy(sidecar_path(source), sidecar)
        case 1:
            manifest = deblur_export.artifact.read_artifact(source).manifest
            try:
                record = FileRecord(ModelFile(net).sha256, net.stat().st_size)
            except DeblurExportError:
                return
            write_sidecar(net, deblur_export.artifact.replace(manifest, file=record))


def test_damaged_bytes(invoke: Invoke, source: Path, net: Path) -> None:
    content = source.read_bytes()
    for seed in seeds():
        rng = random.Random(seed)
        net.write_bytes(damaged_bytes(rng, content))
        beside(rng, source, net)
        check_picture(net, seed)
        check_verbs(invoke, net, seed)


def test_damaged_graphs(invoke: Invoke, source: Path, net: Path) -> None:
    model = onnx.load(source)
    for seed in seeds():
        rng = random.Random(seed)
        net.write_bytes(damaged_graph(rng, model).SerializeToString())
        beside(rng, source, net)
        check_picture(net, seed)
        check_verbs(invoke, net, seed)


def test_damaged_manifests(invoke: Invoke, source: Path, net: Path) -> None:
    """Inside the file, and beside it."""
    model = onnx.load(source)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    text = entry.value
    for seed in seeds():
        rng = random.Random(seed)
        sidecar_path(net).unlink(missing_ok=True)
        entry.value = text
        if rng.random() < 0.5:
            entry.value = damaged_manifest(rng, text).decode(errors="replace")
        else:
            whole = sidecar_path(source).read_text(encoding="utf-8")
            sidecar_path(net).write_bytes(damaged_manifest(rng, whole))
            if rng.random() < 0.5:
                entry.value = json.dumps(None)
        onnx.save(model, net)
        check_picture(net, seed)
        check_verbs(invoke, net, seed)
