"""A tiny dataset on disk: random squares whose middle is blurred horizontally."""

from __future__ import annotations

from pathlib import Path

import numpy as np

REACH = 5  # pixels


def write_dataset(folder: Path, count: int = 6, size: int = 48, fade: float = 1.0) -> Path:
    """Write the splits train and val with `count` and 2 pairs and return the folder. `fade`
    darkens the blurred images, which a few training steps can undo."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 2)):
        sharp = rng.integers(0, 256, (number, size // 4, size // 4, 3), dtype=np.uint8)
        sharp = sharp.repeat(4, axis=1).repeat(4, axis=2)
        moved = [np.roll(sharp, shift, axis=2) for shift in range(-(REACH // 2), REACH // 2 + 1)]
        mask = np.zeros((number, size, size), np.uint8)
        mask[:, size // 4 : -size // 4, size // 4 : -size // 4] = 255
        blurred = np.where(mask[..., None] > 0, np.mean(moved, axis=0), sharp)
        blurred = (fade * blurred).astype(np.uint8)
        motion = np.zeros((number, size, size, 2), np.float16)
        motion[mask > 0] = (REACH, 0)
        (folder / split).mkdir(parents=True)
        fields = {"blurred": blurred, "sharp": sharp, "mask": mask, "motion": motion}
        for name, field in fields.items():
            np.save(folder / split / f"{name}.npy", field)
    return folder
