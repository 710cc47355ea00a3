"""Running photos: tiles equal the whole where the network is local, a note says so elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from deblur_export.artifact import METADATA_KEY, read_artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export import tile_choice
from deblur_export.export.images.overlay import tinted
from deblur_export.export.restore import Restorer, restore_file
from deblur_export.export.tile_choice import TileOptions
from deblur_export.manifest_blocks import Tile
from deblur_export.models.checkpoint import load_model
from tests.conftest import Exported
from tests.manifests import make_manifest

LEVEL = 1 / 255
RADIUS = 6


@pytest.fixture
def local_file(tmp_path: Path) -> Path:
    """Two 7x7 convolutions (radius 6) as an artifact that declares its receptive field."""
    generator = np.random.default_rng(0)
    weights = [generator.normal(0, 0.08, (3, 3, 7, 7)).astype(np.float32) for _ in range(2)]
    convolution = {"kernel_shape": [7, 7], "pads": [3, 3, 3, 3]}
    make = onnx.helper
    info = [
        make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
        for name in ("image", "restored")
    ]
    graph = make.make_graph(
        [
            make.make_node("Conv", ["image", "w0"], ["x"], **convolution),
            make.make_node("Tanh", ["x"], ["y"]),
            make.make_node("Conv", ["y", "w1"], ["restored"], **convolution),
        ],
        "local",
        info[:1],
        info[1:],
        [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=10)
    manifest = make_manifest(tile=Tile(RADIUS, 1, proved=False))
    make.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    path = tmp_path / "local.onnx"
    onnx.save(model, path)
    return path


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).random((height, width, 3), np.float32)


@pytest.mark.parametrize("tile", [96, 128])
@pytest.mark.parametrize("size", [(97, 211), (300, 140), (40, 260)])
def test_tiles_equal_the_whole_for_a_local_network(
    local_file: Path, size: tuple[int, int], tile: int
) -> None:
    restorer = Restorer(read_artifact(local_file))
    whole = restorer.restore(picture(*size), TileOptions(tile=0)).rgb
    restored = restorer.restore(picture(*size), TileOptions(tile=tile))
    tiled, notes = restored.rgb, restored.notes
    assert np.abs(tiled - whole).max() < 1e-5 < LEVEL
    assert notes == ()


def test_overlap_below_the_receptive_field_is_told(local_file: Path) -> None:
    restorer = Restorer(read_artifact(local_file))
    whole = restorer.restore(picture(97, 211), TileOptions(tile=0)).rgb
    restored = restorer.restore(picture(97, 211), TileOptions(tile=64, overlap=4))
    tiled, notes = restored.rgb, restored.notes
    assert np.abs(tiled - whole).max() > LEVEL
    assert "receptive field" in notes[0]


def test_global_pooling_is_told(exported: Exported) -> None:
    restorer = Restorer(read_artifact(exported().path))
    notes = restorer.restore(picture(200, 260), TileOptions(tile=192)).notes
    assert "pools over the whole image" in notes[0]
    assert restorer.restore(picture(60, 60), TileOptions()).notes == ()


@pytest.mark.parametrize("tile", [0, 192])
def test_mask_covers_the_photo_and_is_what_the_network_decided(
    exported: Exported, tmp_path: Path, tile: int
) -> None:
    artifact = read_artifact(exported().path)
    rgb = picture(201, 259)
    restored = Restorer(artifact, mask=True).restore(rgb, TileOptions(tile=tile))
    assert restored.mask is not None
    assert restored.mask.shape == rgb.shape[:2]
    assert 0.05 < restored.mask.mean() < 0.95
    assert (restored.rgb == Restorer(artifact).restore(rgb, TileOptions(tile=tile)).rgb).all()
    if tile == 0:
        net = load_model("m2aenet", "tiny", "random:0").net
        masks: list[torch.Tensor] = []
        hook = net.get_submodule("mask").register_forward_hook(lambda m, i, o: masks.append(o))
        with hook, torch.no_grad():
            net(torch.from_numpy(rgb.transpose(2, 0, 1)[None].copy()))
        every_eighth = masks[0][0, 0, : restored.mask[::8].shape[0], : rgb.shape[1] // 8 + 1]
        assert (restored.mask[::8, ::8] == every_eighth.numpy()).mean() > 0.999


def test_overlay_is_orange_where_the_mask_is_set(exported: Exported, tmp_path: Path) -> None:
    grey = np.full((40, 60, 3), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "in.png")
    restorer = Restorer(read_artifact(exported().path), mask=True)
    notes = restore_file(restorer, tmp_path / "in.png", tmp_path / "out.png", TileOptions())
    assert "detected as blurred" in notes[-1]
    assert (tmp_path / "out_mask.png").exists()
    mask = np.zeros((40, 60), np.float32)
    mask[10:20] = 1
    tint = tinted(grey.astype(np.float32) / 255, mask).astype(int)
    assert (tint[:10] == 128).all()
    assert (tint[10:20, :, 0] > tint[10:20, :, 2] + 80).all()


def test_mask_of_a_network_without_one_is_refused(local_file: Path) -> None:
    with pytest.raises(DeblurExportError, match="no blur mask"):
        Restorer(read_artifact(local_file), mask=True)


def test_large_images_are_tiled_without_being_asked(
    local_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_choice, "WHOLE_PIXELS", 100 * 100)
    monkeypatch.setattr(tile_choice, "TILE", 96)
    calls: list[tuple[int, int]] = []
    restorer = Restorer(read_artifact(local_file))
    restorer.restore(picture(150, 150), TileOptions(), lambda *call: calls.append(call))
    assert calls[-1][1] > 1
    assert calls[-1][0] == calls[-1][1]


def test_too_small_a_tile_is_refused(local_file: Path) -> None:
    with pytest.raises(DeblurExportError, match="too small"):
        Restorer(read_artifact(local_file)).restore(picture(99, 99), TileOptions(tile=20))


def test_alpha_and_depth_survive(local_file: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "in.png")
    restore_file(
        Restorer(read_artifact(local_file)),
        tmp_path / "in.png",
        tmp_path / "out.png",
        TileOptions(),
    )
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == "RGBA"
        assert (np.asarray(out)[..., 3] == pixels[..., 3]).all()


def test_a_local_file_in_tiles_is_told_what_it_is(exported: Exported) -> None:
    artifact = exported("nafnet", local=True)
    notes = Restorer(artifact).restore(picture(200, 260), TileOptions(tile=192)).notes
    assert "(--local) pools over windows" in notes[0]
