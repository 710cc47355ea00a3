"""The demo weights in the package: they fit, are small, are the default of `tiny`, and deblur."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_export.artifact import read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.parity import metrics
from deblur_export.export.parity.verify import reference_model
from deblur_export.export.pipeline import ExportOptions, export_onnx
from deblur_export.models import checkpoint
from deblur_export.models.checkpoint import DEMO_FOLDER, default_weights, load_model
from deblur_export.models.training.data.blur import synthesize

FILES = sorted(DEMO_FOLDER.glob("*.safetensors"))
SMALL = 3_000_000  # bytes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_fits_its_variant_and_has_a_card(path: Path) -> None:
    name, variant = path.stem.split("_")
    assert path.stat().st_size <= SMALL
    model = load_model(name, variant, "demo")
    assert (model.variant, model.weights) == (variant, "demo")
    assert all(p.isfinite().all() for p in model.net.parameters())
    assert load_model(None, None, str(path)).title == model.title, "recognised by its keys as well"
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "**Licence.**" in card
    assert "**Loss.**" in card


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_moving_object_gets_sharper(path: Path, photos: Path) -> None:
    name, variant = path.stem.split("_")
    net = load_model(name, variant, "demo").net
    photo = np.asarray(Image.open(photos / "astronaut.png").convert("RGB"))
    before, after = [], []
    for seed in range(4):
        pair = synthesize(photo, seed, (192, 192), "local")
        sharp = pair.sharp.transpose(2, 0, 1)
        blurred = pair.blurred.transpose(2, 0, 1)
        with torch.no_grad():
            restored = net(torch.from_numpy(blurred[None].copy()))[0].clamp(0, 1).numpy()
        before.append(metrics.psnr(sharp, blurred, weight=pair.mask))
        after.append(metrics.psnr(sharp, restored, weight=pair.mask))
    assert np.mean(after) > np.mean(before) + 0.3, (before, after)


def test_the_default_is_demo_for_tiny_and_random_for_others() -> None:
    assert default_weights("m2aenet", "tiny") == "demo"
    assert default_weights("m2aenet", "base") == "random:0"
    assert default_weights("m2aenet", None) == "random:0"
    assert load_model("m2aenet", None, "demo").variant == "tiny"


@pytest.mark.parametrize(
    ("name", "variant", "words"),
    [(None, None, "--model"), ("m2aenet", "base", "m2aenet:tiny"), ("nafnet", "no", "nafnet:no")],
)
def test_demo_weights_that_do_not_exist(name: str, variant: str, words: str) -> None:
    with pytest.raises(DeblurExportError, match=words):
        load_model(name, variant, "demo")


def test_other_demo_weights_than_exported_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model("nafnet", "tiny", "demo")
    path = tmp_path / "net.onnx"
    export_onnx(model, ExportOptions(shape=(1, 3, 16, 16)), path)
    assert reference_model(read_artifact(path)).sha256 == model.sha256
    other = load_model("nafnet", "tiny", "random:1").net.state_dict()
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(other, folder / "net.pth")
    monkeypatch.setattr(checkpoint, "demo_path", lambda name, variant: folder / "net.pth")
    with pytest.raises(DeblurExportError, match="not the weights"):
        reference_model(read_artifact(path))
