"""A sharp photo that needs no download."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray


def textured(seed: int, height: int = 300, width: int = 340) -> NDArray[np.uint8]:
    """Noise with detail at several scales, coarse in colour, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for scale, channels in ((2, 1), (6, 1), (20, 3)):
        grain = rng.random((height // scale + 2, width // scale + 2, channels), dtype=np.float32)
        grown = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
        total += grown.reshape(height, width, channels)
    return np.clip(total / 3 * 255, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    return textured(0)


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder with photos of every split, under file names of the table."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, name in enumerate(("farm-pig.webp", "farm-sheep.webp", "astronaut.png")):
        pixels = textured(index, 200, 220)
        cv2.imwrite(str((folder / name).with_suffix(".png")), pixels)
        (folder / name).with_suffix(".png").rename(folder / name)
    return folder
