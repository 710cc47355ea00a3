"""verify --pairs: comparison with the ground truth, and the messages if it fails."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from deblur_export.errors import DeblurExportError
from deblur_export.export.images.pairs import Pair, Pairs, open_pairs
from deblur_export.export.parity import metrics
from deblur_export.export.parity.ground_truth import (
    GroundTruthReport,
    compare_with_ground_truth,
)
from deblur_export.export.parity.ground_truth_report import (
    SHOWN,
    ground_truth_section,
    ground_truth_table,
)
from deblur_export.export.pipeline import ExportOptions
from tests.conftest import Exported
from tests.test_cli import Invoke, assert_refused, invoke

__all__ = ["invoke"]  # a fixture
DYNAMIC = ("batch", 3, "height", "width")
HEIGHT, WIDTH = 17, 23


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """[count, H, W, 3], far enough from 0 and 255 that small errors are not clipped."""
    shape = (count, HEIGHT, WIDTH, 3)
    return np.random.default_rng(seed).integers(60, 190, shape, np.uint8)


def masks(count: int) -> NDArray[np.uint8]:
    """Masks whose left part is blurred, except the first, in which nothing is."""
    mask = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    mask[1:, :, :9] = 255
    return mask


def write_dataset(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    arrays = {"blurred": images(count, 1), "sharp": images(count), "mask": masks(count)}
    arrays["motion"] = np.zeros((count, HEIGHT, WIDTH, 2), np.float16)  # type: ignore[assignment]
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def write_folders(folder: Path, count: int) -> Path:
    for kind, pictures in (
        ("blurred", images(count, 1)),
        ("sharp", images(count)),
        ("masks", masks(count)),
    ):
        (folder / kind).mkdir(parents=True)
        suffix = "tiff" if kind == "sharp" else "png"
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / kind / f"{number}.{suffix}")
    return folder


def made(count: int = 3) -> Pairs:
    sharp, blurred, mask = images(count) / 255, images(count, 1) / 255, masks(count) / 255

    def load(index: int) -> Pair:
        pair = [
            np.ascontiguousarray(x[index].transpose(2, 0, 1)[None], np.float32)
            for x in (blurred, sharp)
        ]
        return Pair(f"pair {index}", pair[0], pair[1], mask[index].astype(np.float32))

    return Pairs("made", count, load)


def off_by(error: float) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A network that returns the ground truth of `made` with an error of this size on the left."""
    ground_truth = {pair.blurred.tobytes(): pair.sharp for pair in made()}

    def restore(blurred: NDArray[np.float32]) -> NDArray[np.float32]:
        restored = ground_truth[blurred.tobytes()].copy()
        restored[..., :9] += error
        return restored

    return restore


def compared(
    reference: float, candidate: float, max_drop: float = 0.1, min_psnr: float = 0
) -> GroundTruthReport:
    """The report for two networks with errors of these sizes."""
    networks = off_by(reference), off_by(candidate)
    return compare_with_ground_truth(made(), *networks, max_drop, min_psnr)


def test_scores_and_drop_are_correct() -> None:
    report = compared(0.01, 0.02, max_drop=6.1)
    assert report.drop == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert report.summary == "3 pairs lose 6.0206 dB of PSNR against the ground truth"
    assert "gain 6.0206 dB" in compared(0.02, 0.01).summary
    assert report.passed
    first, second, _ = report.pairs
    assert first.candidate.psnr_w is None, "nothing in it is blurred"
    assert second.reference.psnr_w == pytest.approx(40, abs=1e-3)
    assert second.reference.psnr == pytest.approx(40 - 10 * math.log10(9 / WIDTH), abs=1e-3)
    assert second.parity == pytest.approx(second.reference.psnr, abs=1e-3)
    sharp, restored = made().load(1).sharp, off_by(0.02)(made().load(1).blurred)
    assert second.candidate.ssim == metrics.ssim(sharp[0], restored[0])
    means = report.means()[1]
    assert means.psnr_w == pytest.approx(20 * math.log10(1 / 0.02), abs=1e-3)


@pytest.mark.parametrize(
    ("reference", "candidate", "bounds", "reason"),
    [
        (0.01, 0.0101, (0.1, 0), ""),
        (0.01, 0.0102, (0.1, 0), "lose 0.1720 dB of PSNR against the ground truth, and 0.1 dB"),
        (0.02, 0.01, (0, 0), ""),  # closer to the ground truth than PyTorch
        (0.0, 0.0, (0, 1000), ""),  # both infinite
        (0.01, 0.0101, (0.1, 90), "pair 0 against the reference is 84.07 dB, below 90 dB"),
        (0.01, math.nan, (0.1, 0), "lose nan dB"),
    ],
)
def test_what_fails(
    reference: float, candidate: float, bounds: tuple[float, float], reason: str
) -> None:
    report = compared(reference, candidate, *bounds)
    assert report.passed == (not reason)
    assert reason in report.reason


def test_datasets_and_folders_give_the_same_pairs(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset" / "val", 3)
    folders = write_folders(tmp_path / "folders", 3)
    sources = [tmp_path / "dataset", tmp_path / "dataset" / "val", folders]
    kinds = [list(open_pairs(source, DYNAMIC)) for source in sources]
    for pairs in zip(*kinds, strict=True):
        for pair in pairs[1:]:
            for one, other in zip(
                (pair.blurred, pair.sharp, pair.mask),
                (pairs[0].blurred, pairs[0].sharp, pairs[0].mask),
                strict=True,
            ):
                assert one is not None and other is not None
                assert one.dtype == np.float32
                np.testing.assert_allclose(one, other, atol=1e-7)
    assert [pair.name for pair in kinds[0]] == ["val 0", "val 1", "val 2"]
    write_dataset(tmp_path / "dataset" / "test", 2)
    assert open_pairs(tmp_path / "dataset", DYNAMIC).count == 2, "the preferred split"
    for path in (folders / "masks").iterdir():
        path.unlink()
    (folders / "masks").rmdir()
    assert next(iter(open_pairs(folders, DYNAMIC))).mask is None


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "pairs", 2)

    def refused(words: str, shape: tuple[int | str, ...] = DYNAMIC, source: Path = folder) -> None:
        with pytest.raises(DeblurExportError, match=words):
            list(open_pairs(source, shape))

    refused("needs a dataset of deblur-export pairs, or a folder", source=tmp_path)
    refused("23x17, and the file supports 32x16 only", (1, 3, 16, 32))
    refused("of the file is 2; export with batch 1", (2, 3, HEIGHT, WIDTH))
    Image.fromarray(images(1)[0, 1:]).save(folder / "sharp" / "1.tiff")
    refused("1.png: the blurred image is 23x17 and the sharp one 23x16, not 23x17")
    (folder / "masks" / "1.png").unlink()
    refused("1 is not in both blurred/ and masks/")
    (folder / "sharp" / "1.tiff").rename(folder / "sharp" / "0.png")
    refused("have the same name")
    (folder / "sharp" / "0.png").unlink()
    refused("1 is not in both blurred/ and sharp/")
    for path in folder.glob("*/*"):
        path.unlink()
    refused("no photos")


def test_reports_name_the_worst_and_escape() -> None:
    whole = compared(0.01, 0.02)
    many = GroundTruthReport("<dataset>", 0.1, 0.0, whole.pairs * 5)
    stream = io.StringIO()
    Console(file=stream, width=120, color_system=None).print(ground_truth_table(many))
    text = stream.getvalue()
    assert "<dataset>: 15 pairs" in text
    assert text.count("+6.0") == SHOWN + 1
    assert f"{15 - SHOWN} more lose less" in text
    html = ground_truth_section(many)
    assert "&lt;dataset&gt;" in html
    assert html.count("<tr>") == 1 + 2 + 1 + 15
    assert "and 0.1 dB are allowed" in html


def test_verify_with_pairs(invoke: Invoke, exported: Exported, tmp_path: Path) -> None:
    fixed = exported(model="nafnet", options=ExportOptions(shape=(1, 3, HEIGHT, WIDTH)))
    write_folders(tmp_path / "pairs", 2)
    code, out, err = invoke(
        "verify", fixed.path, "--pairs", "pairs", "--json", "r.json", "--html", "r.html"
    )
    assert (code, err) == (0, "")
    assert "2 pairs lose" in out
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["ground_truth"]
    assert abs(report["drop"]) < 1e-4
    assert [pair["candidate"]["psnr_w"] is None for pair in report["pairs"]] == [True, False]
    assert report["reference"]["ssim_w"] == pytest.approx(report["candidate"]["ssim_w"], abs=1e-5)
    assert "Comparison with the ground truth" in (tmp_path / "r.html").read_text(encoding="utf-8")

    code, out, err = invoke("verify", fixed.path, "--pairs", "pairs", "--max-psnr-drop", -1)
    assert code == 1
    assert "and -1 dB are allowed" in err
    assert err.count("\n") == 1
    assert_refused(invoke("verify", fixed.path, "--max-psnr-drop", 1), "--pairs")
    assert_refused(invoke("verify", fixed.path, "--pairs", "gone"), "gone", "no pairs inside")
