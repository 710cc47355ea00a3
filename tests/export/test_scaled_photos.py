"""Photos through networks of 1, 3 and 4 channels that enlarge, and files of one size: pixel by
pixel, in tiles and whole, on each runtime and in each precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from deblur_export import open_session
from deblur_export.artifact import Artifact, read_artifact
from deblur_export.calibration.calibrate import Calibration
from deblur_export.calibration.export_int8 import export_int8
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.engines.options import Sizes, profile_for
from deblur_export.export.images.cases import cases_for, range_cases
from deblur_export.export.images.pairs import open_pairs
from deblur_export.export.images.photo_file import read_photo
from deblur_export.export.parity.report_html import to_html
from deblur_export.export.parity.verify import GroundTruthCheck, TorchReference, verify
from deblur_export.export.pipeline import ExportOptions, export_onnx
from deblur_export.export.restore import Restorer, restore_file
from deblur_export.export.tile_choice import TileOptions
from tests.scaled import FIELD, Repeating, Scaled, Shuffling, scaled_model

Make = Callable[..., Artifact]
SIZE = (61, 83)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Exports a network once for all tests."""
    made: dict[str, Artifact] = {}

    def export(
        kind: type[Scaled], shape: Any = None, precision: Any = "fp32", **images: Any
    ) -> Any:
        key = repr((kind, shape, precision, images))
        if key not in made:
            path = tmp_path_factory.mktemp("scaled") / "net.onnx"
            options = ExportOptions(shape=shape, reparam=False, precision=precision)
            made[key] = read_artifact(export_onnx(scaled_model(kind, **images), options, path).path)
        return made[key]

    return export


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def run(artifact: Artifact, photo: Any, folder: Path, **tiles: int) -> tuple[Any, tuple[str, ...]]:
    """The pixels that `run` writes for a picture, and its notes."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(photo.squeeze()).save(folder / "in.png")
    notes = restore_file(
        Restorer(artifact), folder / "in.png", folder / "out.png", TileOptions(**tiles)
    )
    with Image.open(folder / "out.png") as image:
        return np.array(image), notes


def repeated(photo: np.ndarray, scale: int) -> np.ndarray:
    return photo.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("tile", [0, 40])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_each_pixel_becomes_scale_x_scale_pixels(
    make: Make, scale: int, tile: int, tmp_path: Path
) -> None:
    artifact = make(Repeating, scale=scale, multiple=4)
    photo = picture(*SIZE)
    found, notes = run(artifact, photo, tmp_path, tile=tile, overlap=8)
    assert (found == repeated(photo, scale)).all()
    assert notes == ()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_photos_of_every_kind_through_networks_of_every_channels(
    make: Make, channels: int, tmp_path: Path
) -> None:
    """Grey, colour, and colour with an alpha whose regions are large."""
    artifact = make(Repeating, channels=channels, scale=2)
    for kinds in (1, 3, 4):
        photo = picture(30, 41, kinds)
        if kinds == 4:
            photo[..., 3] = 255
            photo[:10, :, 3] = 0
        found, notes = run(artifact, photo, tmp_path, tile=0)
        wanted = repeated(photo, 2).squeeze()
        if kinds == 4 and channels != 4:  # its alpha is enlarged with soft edges
            edge = slice(16, 24)
            assert (np.abs(np.diff(found[edge, 0, 3].astype(int))) < 200).all()
            for part in (found, wanted):
                part[edge] = 0
        assert (found == wanted).all(), kinds
        grey_network = channels == 1 and kinds > 1
        assert any("one by one" in note for note in notes) == grey_network


def test_a_network_of_alpha_restores_alpha(tmp_path: Path, make: Make) -> None:
    model = scaled_model(Shuffling, channels=4, scale=2)
    artifact = make(Shuffling, channels=4, scale=2)
    photo = picture(20, 24, 4).clip(1)
    found, _ = run(artifact, photo, tmp_path)
    image = torch.from_numpy(photo.transpose(2, 0, 1)[None] / np.float32(255))
    with torch.no_grad():
        wanted = model.net(image)[0].clamp(0, 1).numpy().transpose(1, 2, 0) * 255
    assert np.abs(found - wanted).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_tiles_equal_the_whole_at_scale(make: Make, runtime: str, channels: int) -> None:
    artifact = make(Shuffling, channels=channels, scale=3, multiple=2)
    rgb = picture(*SIZE).astype(np.float32) / 255
    restorer = Restorer(artifact, runtime=runtime)
    whole = restorer.restore(rgb, TileOptions(tile=0)).rgb
    tiled = restorer.restore(rgb, TileOptions(tile=32, overlap=2 * FIELD + 4))
    assert whole.shape == (3 * SIZE[0], 3 * SIZE[1], 3)
    assert np.abs(tiled.rgb - whole).max() < 1e-5
    assert not any("tiles" in note for note in tiled.notes)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, 40, 24), (4, 3, 32, 48)], ids=str)
@pytest.mark.parametrize("size", [(61, 83), (20, 90), (9, 7), (1, 1), (32, 48)], ids=str)
def test_a_file_of_one_size_restores_photos_of_any_size(
    make: Make, shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    """As the file of free sizes does, where the photo is not smaller than a tile: a small one is
    surrounded by its reflection, which a convolution sees."""
    images = {"scale": 2, "multiple": 8}
    rgb = picture(*size).astype(np.float32) / 255
    found = Restorer(make(Shuffling, shape=shape, **images)).restore(rgb, TileOptions())
    wanted = Restorer(make(Shuffling, **images)).restore(rgb, TileOptions(tile=0)).rgb
    assert found.rgb.shape == (2 * size[0], 2 * size[1], 3)
    assert found.notes == ()
    inside = [
        slice(None) if side >= tile else slice(0, max(2 * (side - FIELD), 0))
        for side, tile in zip(size, shape[2:], strict=True)
    ]
    difference = np.abs(found.rgb - wanted)[inside[0], inside[1]]
    assert difference.size == 0 or difference.max() < 1e-5


def test_a_small_photo_is_reflected_and_a_pooling_network_told(make: Make) -> None:
    pooling = make(Shuffling, shape=(1, 3, 32, 32), field=None)
    restorer = Restorer(pooling)
    rgb = picture(9, 7).astype(np.float32) / 255
    (small,) = restorer.restore(rgb, TileOptions()).notes
    assert "filled up with its reflection to the 32x32" in small
    (large,) = restorer.restore(np.tile(rgb, (9, 9, 1)), TileOptions()).notes
    assert "pools over the whole image" in large and "accepts any size" in large
    assert restorer.restore(np.tile(rgb, (4, 5, 1))[:32, :32], TileOptions()).notes == ()


def test_tiles_of_another_size_than_the_file_are_refused(make: Make) -> None:
    restorer = Restorer(make(Shuffling, shape=(1, 3, 32, 32)))
    rgb = picture(50, 50).astype(np.float32) / 255
    for tile in (0, 40):
        with pytest.raises(DeblurExportError, match=rf"accepts 32x32 only.*not {tile}"):
            restorer.restore(rgb, TileOptions(tile=tile))
    assert restorer.restore(rgb, TileOptions(tile=32)).rgb.shape == rgb.shape


def test_a_tile_below_the_receptive_field_is_told(make: Make) -> None:
    restorer = Restorer(make(Shuffling, shape=(1, 3, 16, 16), field=40))
    (note,) = restorer.restore(picture(50, 50) / np.float32(255), TileOptions()).notes
    assert "receptive field of 40" in note


def test_a_square_network_restores_any_photo(make: Make, tmp_path: Path) -> None:
    photo = picture(21, 50)
    for shape in (None, (1, 3, 32, 32)):
        artifact = make(Repeating, shape=shape, scale=2, square=True, multiple=8, minimum=30)
        found, _ = run(artifact, photo, tmp_path)
        assert (found == repeated(photo, 2)).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_and_alpha_at_scale(make: Make, suffix: str, tmp_path: Path) -> None:
    import cv2

    samples = np.random.default_rng(0).integers(0, 65536, (12, 15, 4), np.uint16)
    samples[..., 3] = 65535
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    cv2.imwrite(str(source), samples)
    restore_file(Restorer(make(Repeating, scale=2)), source, target, TileOptions())
    found, photo = read_photo(target), read_photo(source)
    assert found.bits == 16
    assert (found.rgb == repeated(photo.rgb, 2)).all()
    assert found.alpha is not None and (found.alpha == 65535).all()


def test_what_is_hidden_stays_and_alpha_has_no_second_edge(make: Make, tmp_path: Path) -> None:
    photo = picture(40, 40, 4)
    photo[..., 3] = 0
    photo[10:30, 10:30, 3] = 255
    found, _ = run(make(Shuffling, scale=4), photo, tmp_path)
    alpha = found[..., 3].astype(int)
    assert (alpha[60:100, 60:100] == 255).all()
    assert (alpha[:32] == 0).all() and (alpha[:, 128:] == 0).all()
    rising = alpha[80, 30:60]
    assert (np.diff(rising) >= 0).all()
    hidden = alpha == 0
    assert (found[hidden][:, :3] == repeated(photo, 4)[hidden][:, :3]).all()


def test_the_size_in_exif_and_xmp_is_that_of_the_result(make: Make, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[int(ExifTags.Base.Make)] = "a camera"
    exif[int(ExifTags.Base.Orientation)] = 6
    exif[int(ExifTags.IFD.Exif)] = {0xA002: 20, 0xA003: 10, 0x829A: 0.5}
    xmp = b'<x exif:PixelXDimension="20" tiff:ImageLength="10" GPano:FullPanoWidthPixels="40"/>'
    Image.fromarray(picture(10, 20)).save(
        tmp_path / "in.jpg", exif=exif.tobytes(), xmp=xmp, dpi=(300, 300), icc_profile=b"x" * 200
    )
    for scale in (1, 2):
        target = tmp_path / f"out{scale}.jpg"
        restore_file(
            Restorer(make(Repeating, scale=scale)), tmp_path / "in.jpg", target, TileOptions()
        )
        with Image.open(target) as image:
            assert image.size == (10 * scale, 20 * scale)  # turned
            tags = image.getexif().get_ifd(ExifTags.IFD.Exif)
            assert (tags[0xA002], tags[0xA003]) == image.size
            assert float(tags[0x829A]) == 0.5 and image.getexif()[271] == "a camera"
            assert image.info["dpi"] == (300, 300) and image.info["icc_profile"] == b"x" * 200
            said = image.info["xmp"]
            assert b'PixelXDimension="%d"' % (10 * scale) in said
            assert b'ImageLength="%d"' % (20 * scale) in said
            assert b'FullPanoWidthPixels="%d"' % (40 * scale) in said


def test_arrays_of_the_python_session(make: Make) -> None:
    for channels in (1, 4):
        session = open_session(make(Repeating, channels=channels, scale=2), runtime="onnxruntime")
        for count in (3, channels):
            image = picture(11, 14, count)
            assert (session(image) == repeated(image, 2)).all()
            assert session(np.stack([image, image])).shape == (2, 22, 28, count)
        with pytest.raises(DeblurExportError, match="an image is"):
            session(picture(11, 14, 2))


def test_too_little_memory_for_the_result_is_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture(100, 100)).save(tmp_path / "in.png")
    monkeypatch.setattr("deblur_export.photo_memory.free_memory", lambda: 400_000)
    with pytest.raises(DeblurExportError, match=r"in.png: enlarged x4, its 400x400 pixels need"):
        restore_file(
            Restorer(make(Repeating, scale=4)),
            tmp_path / "in.png",
            tmp_path / "out.png",
            TileOptions(),
        )
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_verify_and_its_report(make: Make, channels: int, precision: str, tmp_path: Path) -> None:
    artifact = make(Shuffling, precision=precision, channels=channels, scale=2, multiple=4)
    for kind, size in (("blurred", (24, 30)), ("sharp", (48, 60))):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        Image.fromarray(picture(*size, channels).squeeze()).save(
            tmp_path / "pairs" / kind / "a.png"
        )
    pairs = open_pairs(tmp_path / "pairs", artifact.manifest.input.shape, 2)
    report = verify(
        artifact,
        TorchReference(scaled_model(Shuffling, channels=channels, scale=2, multiple=4), False),
        cases_for(artifact, tmp_path / "pairs" / "blurred"),
        with_images=True,
        ground_truth=GroundTruthCheck(pairs),
    )
    assert report.passed, [case.reason for case in report.cases]
    assert report.cases[0].images is not None
    assert report.cases[0].images.reference.shape[2] == 3
    assert report.ground_truth is not None and abs(report.ground_truth.drop) < 0.1
    assert "FAIL" not in to_html(report)


def test_pairs_that_do_not_fit_the_scale_say_so(make: Make, tmp_path: Path) -> None:
    for kind in ("blurred", "sharp"):
        (tmp_path / kind).mkdir()
        Image.fromarray(picture(24, 30)).save(tmp_path / kind / "a.png")
    shape = make(Shuffling, scale=2).manifest.input.shape
    with pytest.raises(DeblurExportError, match=r"30x24 and the sharp one 30x24, not 60x48: .* x2"):
        open_pairs(tmp_path, shape, 2).load(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_int8_at_scale(channels: int, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture(80, 90)).save(tmp_path / "photos" / "a.png")
    model = scaled_model(Shuffling, channels=channels, scale=2)
    chosen = Calibration(tmp_path / "photos", None, count=2, crop=32, max_drop=math.inf)
    options = ExportOptions(reparam=False)
    artifact = export_int8(model, options, chosen, tmp_path / "net.onnx", lambda step: None)
    photo = picture(33, 41)
    found, _ = run(artifact, photo, tmp_path / "run")
    assert found.shape == (66, 82, 3)
    wanted = Restorer(
        read_artifact(export_onnx(model, options, tmp_path / "fp32.onnx").path)
    ).restore(photo / np.float32(255), TileOptions())
    assert np.abs(found - 255 * wanted.rgb.clip(0, 1)).mean() < 3


def test_int8_of_a_network_without_inner_layers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture(40, 40)).save(tmp_path / "photos" / "a.png")
    chosen = Calibration(tmp_path / "photos", None, count=2, crop=32)
    with pytest.raises(CheckFailedError, match="none of its convolutions and products"):
        export_int8(
            scaled_model(Repeating), ExportOptions(reparam=False), chosen, tmp_path / "net.onnx"
        )


def test_profiles_of_engines_have_the_channels_and_batch_of_the_file() -> None:
    grey = profile_for(("batch", 1, "height", "width"), Sizes(batch=(1, 2, 4)))
    assert grey is not None
    assert [shape[:2] for shape in (grey.smallest, grey.typical, grey.largest)] == [
        (1, 1),
        (2, 1),
        (4, 1),
    ]
    assert [case.image.shape[1] for case in range_cases(grey.smallest, grey.largest)] == [1, 1, 1]
    single = profile_for((1, 4, "height", "width"), Sizes(fixed=(64, 96)))
    assert single is not None and single.largest == (1, 4, 64, 96)
    with pytest.raises(DeblurExportError, match="batches of 1 only; leave --batch out"):
        profile_for((1, 4, "height", "width"), Sizes(batch=(1, 2, 4)))
