"""`open_session`: arrays of every kind, threads, photos, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import deblur_export
from deblur_export import DeblurExportError
from deblur_export.api.session import PhotoSession
from deblur_export.models.checkpoint import load_model
from tests.conftest import Exported
from tests.tolerances import NETWORK_FLOAT32

SHAPE = (37, 50, 3)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.float32]:
    return np.random.default_rng(0).random(SHAPE, np.float32)


@pytest.fixture
def session(exported: Exported) -> PhotoSession:
    return deblur_export.open_session(exported().path, runtime="onnxruntime")


def by_pytorch(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W, 3] -> [H, W, 3], by the network that `exported` exports."""
    model = load_model("m2aenet", "tiny", "random:0")
    with torch.no_grad():
        restored = model.net(torch.from_numpy(pixels.transpose(2, 0, 1)[None]))
    return restored[0].numpy().transpose(1, 2, 0)  # type: ignore[no-any-return]


def test_float_images(session: PhotoSession, pixels: NDArray[np.float32]) -> None:
    restored = session(pixels)
    assert restored.dtype == np.float32 and restored.shape == SHAPE
    np.testing.assert_allclose(restored, by_pytorch(pixels), **NETWORK_FLOAT32)
    assert session(pixels.astype(np.float64)).dtype == np.float64


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_images(
    session: PhotoSession, pixels: NDArray[np.float32], dtype: Any, largest: int
) -> None:
    stored = np.rint(pixels * largest).astype(dtype)
    restored = session(stored)
    assert restored.dtype == dtype and restored.shape == SHAPE
    exact = by_pytorch(stored.astype(np.float32) / np.float32(largest)).clip(0, 1) * largest
    assert np.abs(restored - exact).max() <= 0.5 + largest * NETWORK_FLOAT32["atol"]


def test_a_batch_is_restored_image_by_image(
    session: PhotoSession, pixels: NDArray[np.float32]
) -> None:
    other = pixels[::-1].copy()
    restored = session(np.stack([pixels, other]))
    np.testing.assert_array_equal(restored, np.stack([session(pixels), session(other)]))


def test_threads_share_a_session(session: PhotoSession, pixels: NDArray[np.float32]) -> None:
    images = [np.roll(pixels, shift, axis=1) for shift in range(8)]
    expected = [session(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(session, images), expected, strict=True):
            np.testing.assert_array_equal(found, alone)


def test_a_photo(session: PhotoSession, pixels: NDArray[np.float32], tmp_path: Path) -> None:
    stored = np.rint(pixels * 255).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "photo.png")
    session.restore_file(str(tmp_path / "photo.png"), tmp_path / "restored.png")
    written = np.asarray(Image.open(tmp_path / "restored.png"))
    np.testing.assert_array_equal(written, session(stored))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((4, 4, 4), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((4, 4, 3), np.int32), "not int32"),
        (np.full((4, 4, 3), np.nan, np.float32), "NaN or infinity"),
    ],
    ids=["grey", "alpha", "empty", "int32", "nan"],
)
def test_what_is_refused(session: PhotoSession, image: Any, said: str) -> None:
    with pytest.raises(DeblurExportError, match=said):
        session(image)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match="no such file"):
        deblur_export.open_session(tmp_path / "none.onnx")
