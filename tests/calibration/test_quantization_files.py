"""`deblur-export calibrate`: exported files to int8, with images, a cache and a budget."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from deblur_export import cli
from deblur_export.artifact import Artifact, read_artifact
from deblur_export.calibration import calibrate as module
from deblur_export.calibration import export_int8
from deblur_export.calibration.calibrate import Calibration, calibrate
from deblur_export.calibration.images import photo_crops
from deblur_export.calibration.qdq import LAYOUTS, Layout
from deblur_export.calibration.report import block_table, plot_pareto, summary
from deblur_export.errors import CheckFailedError, DeblurExportError
from deblur_export.export.images.cases import Case
from deblur_export.export.parity.verify import reference_model, verify
from deblur_export.export.pipeline import ExportOptions
from deblur_export.export.precision.cast import lower_precision
from deblur_export.export.precision.int8_check import check_int8, int8_nodes, weights_hash
from deblur_export.export.precision.int8_mixed import lower_high_precision
from deblur_export.export.precision.policy import SERVES
from deblur_export.export.runtimes.emulated_session import EmulatedSession, element_types
from deblur_export.export.to_onnx import save
from deblur_export.precision import GraphPrecision
from tests import needs
from tests.conftest import Exported
from tests.manifests import in_precision, make_manifest
from tests.models.training.data.conftest import textured

NET = """
<ir_version: 10, opset_import: ["": 18]>
net (float[batch, 3, height, width] image) => (float[batch, 3, height, width] restored)
<float[4, 3, 3, 3] intro_w, float[4, 4, 3, 3] a_w, float[4, 4, 3, 3] b_w, float[3, 4, 3, 3] out_w> {
    [intro] i = Conv <pads = [1, 1, 1, 1]> (image, intro_w)
    [first] a = Conv <pads = [1, 1, 1, 1]> (i, a_w)
    [second] b = Conv <pads = [1, 1, 1, 1]> (a, b_w)
    [ending] e = Conv <pads = [1, 1, 1, 1]> (b, out_w)
    [residual] restored = Add(e, image)
}"""

NAMES = {"first": "blocks.0.conv/Conv", "second": "blocks.1.conv/Conv"}


@pytest.fixture
def toy(tmp_path: Path) -> Artifact:
    """Four convolutions and a residual; the first block has a weight that int8 represents badly."""
    model = onnx.parser.parse_model(NET)
    for node in model.graph.node:
        node.name = NAMES.get(node.name, node.name)
    rng = np.random.default_rng(0)
    shapes = {"intro_w": (4, 3), "a_w": (4, 4), "b_w": (4, 4), "out_w": (3, 4)}
    weights = {k: rng.normal(size=(*v, 3, 3)).astype(np.float32) * 0.1 for k, v in shapes.items()}
    weights["a_w"][:, 0, 0, 0] = 8
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    return save(ir.from_proto(model), tmp_path / "toy.onnx", make_manifest())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(2):
        photo = textured(seed, 90, 120)
        photo[:, :60] = cv2.GaussianBlur(photo[:, :60], (0, 0), 5)
        cv2.imwrite(str(folder / f"{seed}.png"), photo)
    return folder


@pytest.fixture
def options(images: Path, tmp_path: Path) -> Calibration:
    return Calibration(images, count=6, crop=32, max_drop=9.0, cache=tmp_path / "cache")


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_options(options: Calibration, **changes: Any) -> Calibration:
    return Calibration(**(vars(options) | changes))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_m2aenet_becomes_a_valid_int8_file_that_runs_and_verifies(
    exported: Exported, options: Calibration, layout: Layout, tmp_path: Path
) -> None:
    artifact = exported("m2aenet")
    before = sha(artifact.path)
    path = tmp_path / "m2aenet_int8.onnx"
    result = calibrate(artifact, with_options(options, layout=layout, count=3, crop=64), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert sha(artifact.path) == before
    written = read_artifact(path)
    precision_map, calibration = written.manifest.precision_map, written.manifest.calibration
    assert precision_map is not None and calibration is not None
    assert written.manifest.precision == "int8"
    fraction = precision_map.multiply_adds.conv_and_matmul
    assert fraction == pytest.approx(result.chosen.fraction, abs=1e-3)
    assert fraction > 0.6
    assert len(calibration.images) == 3
    image = np.random.default_rng(0).random((1, 3, 64, 48), dtype=np.float32)
    report = verify(written, reference_model(written), [Case("noise", image)])
    assert report.passed, report.cases[0].reason
    assert report.cases[0].psnr < 90, "nothing was rounded"
    needs.OPENVINO.load()
    report = verify(written, reference_model(written), [Case("noise", image)], runtime="openvino")
    assert report.passed, report.cases[0].reason


def test_a_second_run_reads_the_cache_and_writes_the_same_bytes(
    toy: Artifact, options: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.onnx" for n in range(3)]
    calibrate(toy, options, paths[0])
    with monkeypatch.context() as patched:
        patched.delattr(module, "observe")
        calibrate(toy, options, paths[1])
        calibrate(toy, with_options(options, method="minmax"), paths[2])
    assert sha(paths[0]) == sha(paths[1]) != sha(paths[2])


def test_interrupted_calibration_resumes(
    toy: Artifact, options: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 2)

    def interrupted(step: str) -> None:
        if step.startswith("calibrating: image 5"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(toy, options, tmp_path / "a.onnx", interrupted)
    assert not (tmp_path / "a.onnx").exists()
    seen = list[str]()
    calibrate(toy, options, tmp_path / "a.onnx", seen.append)
    assert [s for s in seen if s.startswith("calibrating")] == [
        f"calibrating: image {n} of 6" for n in (5, 6)
    ]
    fresh = with_options(options, cache=tmp_path / "other")
    calibrate(toy, fresh, tmp_path / "b.onnx")
    assert sha(tmp_path / "a.onnx") == sha(tmp_path / "b.onnx")


def test_the_budget_returns_the_harmful_block_to_float32(
    toy: Artifact, options: Calibration, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    whole = calibrate(toy, with_options(options, whole=True), path)
    assert len(whole.points) == 2 and set(whole.alone) == {"blocks.0", "blocks.1"}
    between = (whole.points[0].score.drop + whole.points[1].score.drop) / 2
    mixed = calibrate(toy, with_options(options, max_drop=between), path)
    assert mixed.chosen.score.drop <= between
    (left,) = mixed.chosen.blocks
    harm = {name: score.error for name, score in whole.alone.items()}
    assert left == min(harm, key=lambda name: harm[name])
    precision_map = mixed.artifact.manifest.precision_map
    assert precision_map is not None
    assert precision_map.kept_fp32["kept in float32 by the budget"]
    assert block_table(whole).row_count == 2
    assert "1 of 2 blocks" in summary(mixed)
    needs.MATPLOTLIB.load()
    plot_pareto(tmp_path / "p.png", whole, between)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_no_budget_at_all(toy: Artifact, options: Calibration, tmp_path: Path) -> None:
    calibrate(toy, with_options(options, max_drop=float("inf")), tmp_path / "x.onnx")
    calibration = read_artifact(tmp_path / "x.onnx").manifest.calibration
    assert calibration is not None and calibration.max_psnr_drop is None


def test_an_impossible_budget_is_a_failed_check(
    toy: Artifact, options: Calibration, tmp_path: Path
) -> None:
    with pytest.raises(CheckFailedError, match=r"no block .* within 0 dB .* --max-psnr-drop"):
        calibrate(toy, with_options(options, max_drop=0.0), tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("high", ["fp16", "bf16"])
def test_the_rest_of_an_int8_file_in_low_precision(
    toy: Artifact, options: Calibration, tmp_path: Path, high: GraphPrecision
) -> None:
    int8 = calibrate(toy, options, tmp_path / "int8.onnx").artifact
    mixed = lower_high_precision(int8, high, tmp_path / "mixed.onnx")
    manifest, model = mixed.manifest, onnx.load(mixed.path)
    onnx.checker.check_model(model, full_check=True)
    assert (manifest.precision, manifest.high_precision) == ("int8", high)
    assert int8_nodes(model) == list(NAMES.values())
    precision_map = manifest.precision_map
    assert precision_map is not None and precision_map.high_precision is not None
    assert precision_map.int8_weights_sha256 == weights_hash(model)
    assert precision_map.high_precision.multiply_adds.conv == 1
    # The scales are the same, so there is no Cast between a QDQ pair and its convolution.
    types = element_types(model)
    low = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[high]
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {types[pair.input[1]] for pair in pairs} == {low}
    image = np.random.default_rng(1).random((1, 3, 32, 40), dtype=np.float32)
    lowered, original = (
        EmulatedSession(artifact, high).run({"image": image})["restored"]
        for artifact in (mixed, int8)
    )
    distance = np.abs(lowered - original).max()
    assert 0 < distance < (0.02 if high == "fp16" else 0.1)
    for wrong in (mixed, toy):
        with pytest.raises(DeblurExportError, match=f"cannot become int8.{high}"):
            lower_high_precision(wrong, high, tmp_path / "again.onnx")


def test_a_pair_with_only_float32_consumers_stays_float32(tmp_path: Path) -> None:
    """A Cast between them would separate layers that a builder fuses."""
    text = """
    <ir_version: 10, opset_import: ["": 22]>
    net (float[n, 3, h, w] image) => (float[n, 3, h, w] restored)
    <float scale = {0.1}, int8 zero = {0}, float[3, 3, 1, 1] w> {
        [read] a = Relu(image)
        [q] q = QuantizeLinear(a, scale, zero)
        [dq] d = DequantizeLinear(q, scale, zero)
        [up] b = ConvTranspose(d, w)
        [low] c = Conv(b, w)
        [joined] restored = Add(c, image)
    }"""
    proto = onnx.parser.parse_model(text)
    weight = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    lowered, casting = lower_precision(ir.from_proto(proto), "bf16", "rtx")
    assert casting.kept[SERVES] == ["dq"]
    makers = {node.name: node.inputs[0].producer() for node in lowered.graph}
    assert makers["up"].name == "dq" and makers["q"].name == "read"


def test_onnx_verb_exports_and_calibrates(
    toy: Artifact,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The export itself is tested elsewhere; here it returns the toy network."""
    out = tmp_path / "out.onnx"
    exported_to = list[Path]()

    def export(model: object, options: ExportOptions, path: Path, progress: object) -> Artifact:
        assert options.precision == "fp32"
        exported_to.append(path)
        return Artifact(Path(shutil.copy(toy.path, path)), toy.manifest)

    monkeypatch.setattr(export_int8, "export_onnx", export)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def invoke(*arguments: object) -> tuple[int, str]:
        start = ("deblur-export", "onnx", "--model", "nafnet", "--variant", "tiny", "-o", out)
        monkeypatch.setattr(sys, "argv", [*map(str, start), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out + captured.err

    wanted = ("--precision", "int8", "--max-psnr-drop", 9)
    for arguments, words in (
        (wanted, "needs images to calibrate on"),
        ((*wanted, "--images", tmp_path / "gone"), "no such folder"),
        ((*wanted, "--images", images, "--ranges", "r.json"), "--ranges and --rescale are for"),
        (("--dataset", images), "are for --precision int8"),
    ):
        code, said = invoke(*arguments)
        assert (code, words in said) == (2, True), said
    assert not exported_to and not out.exists()
    code, said = invoke(*wanted, "--images", images)
    assert (code, "smaller than 256x256" in said, out.exists()) == (2, True, False), said

    large = tmp_path / "large"
    large.mkdir()
    cv2.imwrite(str(large / "photo.png"), textured(0, 260, 280))
    code, said = invoke(*wanted, "--images", large, "--layout", "cpu", "--io", "fp16")
    assert code == 0, said
    assert "int8: " in said and "2 nodes" in said
    assert not exported_to[0].exists()
    manifest = read_artifact(out).manifest
    assert (manifest.precision, manifest.layout) == ("int8", "cpu")
    assert manifest.input.dtype == "float16"


def test_with_a_dataset_the_loss_is_against_the_ground_truth(
    toy: Artifact, options: Calibration, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        folder = tmp_path / "dataset" / split
        folder.mkdir(parents=True)
        blurred = np.stack([textured(seed, 64, 64) for seed in range(3)])
        np.save(folder / "blurred.npy", blurred)
        np.save(folder / "sharp.npy", 255 - blurred)
        np.save(folder / "mask.npy", blurred[..., 0])
        np.save(folder / "motion.npy", np.zeros((3, 64, 64, 2), np.float16))
    pairs = with_options(options, images=None, dataset=tmp_path / "dataset")
    result = calibrate(toy, pairs, tmp_path / "x.onnx")
    assert "sharp images of 3 pairs" in result.measure
    # The ground truth is so different that rounding hardly changes the PSNR.
    assert abs(result.chosen.score.drop) < 0.05 and result.chosen.score.error > 0


def test_crops_cover_sharp_and_blurred_and_are_reproducible(toy: Artifact, images: Path) -> None:
    one, other = (photo_crops(images, toy, 4, 32, lambda step: None) for _ in range(2))
    assert one.fingerprint == other.fingerprint and one.names == other.names
    contrast = [float(np.abs(np.diff(image, axis=3)).mean()) for image in one.images]
    assert contrast[0] > 3 * contrast[-1]
    assert {image.shape for image in one.images} == {(1, 3, 32, 32)}


def test_the_precision_check_counts_pairs_and_not_names(
    toy: Artifact, options: Calibration, tmp_path: Path
) -> None:
    result = calibrate(toy, options, tmp_path / "x.onnx")
    model = onnx.load(result.artifact.path)
    claimed = list(NAMES.values())
    assert check_int8(model, claimed).nodes == 2
    next(n for n in model.graph.node if n.name == claimed[0]).input[0] = "i"
    with pytest.raises(CheckFailedError, match=r"1 convolutions .* not the 2"):
        check_int8(model, claimed)


def test_bad_input_is_one_clear_error(toy: Artifact, options: Calibration, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    empty = tmp_path / "empty"
    empty.mkdir()
    for changes, said in (
        ({"images": None}, "--images or --dataset"),
        ({"images": empty}, "no photos inside"),
        ({"images": tmp_path / "gone"}, "no such folder"),
        ({"crop": 512}, "smaller than 512x512.*--crop"),
        ({"dataset": empty}, "cannot be read"),
    ):
        with pytest.raises(DeblurExportError, match=said):
            calibrate(toy, with_options(options, **changes), out)
    again = Artifact(toy.path, replace(toy.manifest, **in_precision("fp16")))
    with pytest.raises(DeblurExportError, match="is fp16 and cannot become int8"):
        calibrate(again, options, out)


def test_the_command_writes_a_file_and_prints_its_loss(
    toy: Artifact,
    images: Path,
    tmp_path: Path,
    command: Callable[..., CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ("--images", images, "--crop", 32, "--count", 4, "--max-psnr-drop", 9, "--table")
    done = command("calibrate", toy.path, *arguments, "--layout", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "blocks.0" in done.stdout and "2 of 2 blocks" in done.stdout
    assert read_artifact(tmp_path / "toy_int8.onnx").manifest.layout == "cpu"
    failed = command("calibrate", toy.path, *arguments[:6], "--max-psnr-drop", 0, cwd=tmp_path)
    assert failed.returncode == 1 and len(failed.stderr.splitlines()) == 1
