"""Crops, symmetries and bad datasets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data.dataset import (
    Dataset,
    Symmetry,
    transform_image,
    transform_motion,
)

SYMMETRIES = [Symmetry(quarters, mirror) for quarters in range(4) for mirror in (False, True)]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_motion_is_transformed_with_the_image(symmetry: Symmetry) -> None:
    """Moving a dot and then transforming the image gives the same as transforming the image and
    then moving the dot by the transformed vector."""
    start, vector = (3, 4), (2, -1)  # row and column; dx and dy
    image, moved = np.zeros((9, 9)), np.zeros((9, 9))
    image[start] = 1
    moved[start[0] + vector[1], start[1] + vector[0]] = 1
    motion = np.zeros((9, 9, 2))
    motion[start] = vector
    (row,), (column,) = np.nonzero(transform_image(image, symmetry))
    dx, dy = transform_motion(motion, symmetry)[row, column].astype(int)
    assert transform_image(moved, symmetry)[row + dy, column + dx] == 1


def test_draw_cuts_all_fields_alike(dataset: Path) -> None:
    batch = Dataset(dataset, "train").draw(np.random.default_rng(3), 8, 16)
    assert batch.blurred.shape == batch.sharp.shape == (8, 3, 16, 16)
    assert batch.mask.shape == (8, 1, 16, 16)
    assert batch.motion.shape == (8, 2, 16, 16)
    assert batch.blurred.min() >= 0 and batch.blurred.max() <= 1
    differs = (batch.blurred != batch.sharp).any(dim=1, keepdim=True)
    assert not (differs & (batch.mask == 0)).any()
    torch.testing.assert_close(batch.motion.norm(dim=1, keepdim=True), 5 * batch.mask)


def test_focused_crops_show_blur(dataset: Path) -> None:
    part = Dataset(dataset, "train")
    fractions = []
    for focus in (0, 1):
        batch = part.draw(np.random.default_rng(0), 60, 4, focus)
        fractions.append((batch.mask.amax(dim=(1, 2, 3)) > 0).float().mean().item())
    assert fractions[0] < 0.6  # 27 x 27 of 45 x 45 positions
    assert fractions[1] == 1


def test_focus_needs_no_blur(dataset: Path) -> None:
    part = Dataset(dataset, "train")
    part.mask = np.zeros_like(part.mask)
    assert part.draw(np.random.default_rng(0), 4, 16, focus=1).mask.sum() == 0


def test_longest_leaves_out_longer_motion(dataset: Path) -> None:
    assert len(Dataset(dataset, "train", longest=5.01).drawn) == len(Dataset(dataset, "train"))
    with pytest.raises(DeblurExportError, match=r"no motion is as short as 4\.9 pixels"):
        Dataset(dataset, "train", longest=4.9)
    part = Dataset(dataset, "train")
    part.drawn = np.array([1])
    batch = part.draw(np.random.default_rng(0), 3, part.size)
    pixels = batch.sharp.flatten(2).sort(dim=2).values  # of one image, whatever its symmetry
    assert torch.equal(pixels, pixels[:1].expand_as(pixels))


def test_draw_depends_on_the_generator_alone(dataset: Path) -> None:
    part = Dataset(dataset, "train")
    first, again, other = (part.draw(np.random.default_rng(seed), 4, 16) for seed in (1, 1, 2))
    assert torch.equal(first.sharp, again.sharp)
    assert not torch.equal(first.sharp, other.sharp)


def test_whole_takes_images_from_all_over_the_dataset(dataset: Path) -> None:
    part = Dataset(dataset, "train")
    batches = list(part.whole(3, 2))
    assert [len(batch.sharp) for batch in batches] == [2, 1]
    last = torch.tensor(part.sharp[5]).permute(2, 0, 1) / 255
    torch.testing.assert_close(batches[-1].sharp[-1], last)
    assert sum(len(batch.sharp) for batch in part.whole(100, 4)) == len(part)


def test_bad_datasets_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DeblurExportError, match=r"blurred\.npy: cannot be read"):
        Dataset(tmp_path, "train")
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    path = copy / "train" / "sharp.npy"
    sharp = np.load(path)
    for wrong, said in ((sharp[1:], "differ in shape"), (sharp.astype(np.float32), "float32")):
        np.save(path, wrong)
        with pytest.raises(DeblurExportError, match=said):
            Dataset(copy, "train")
    path.write_bytes(b"no array")
    with pytest.raises(DeblurExportError, match="cannot be read"):
        Dataset(copy, "train")
