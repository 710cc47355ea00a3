"""Keep histograms on disk, so that a calibration can be resumed or repeated with another method."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deblur_export.atomic import atomic_path
from deblur_export.calibration.histogram import BINS, Histogram
from deblur_export.errors import DeblurExportError

VERSION = 1  # of the contents of the histograms


def default_folder() -> Path:
    """The folder `deblur-export/calibration` in $XDG_CACHE_HOME, or else in ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "deblur-export" / "calibration"


@dataclass(frozen=True)
class Cache:
    """The cache file of a graph, its tensors and the images; methods and layouts share it."""

    path: Path

    @classmethod
    def of(cls, folder: Path, model: str, data: str, names: Sequence[str]) -> Cache:
        """The cache file in `folder`.

        Args:
            folder: where the cache files are.
            model: SHA-256 of the float32 file.
            data: SHA-256 of the images.
            names: of the tensors.
        """
        key = repr((VERSION, BINS, model, data, tuple(names)))
        return cls(folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz")

    def load(self) -> tuple[dict[str, Histogram], int]:
        """Read the histograms by tensor and the number of images in them.

        Returns no histograms and 0 if there is no intact file.
        """
        try:
            with np.load(self.path, allow_pickle=False) as file:
                parts = [file[key] for key in ("names", "counts", "powers", "ends", "done")]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return {}, 0
        names, counts, powers, ends, done = parts
        rows = zip(names, counts, powers, ends, strict=True)
        found = {str(n): Histogram(c, int(p), float(e[0]), float(e[1])) for n, c, p, e in rows}
        return found, int(done)

    def save(self, histograms: dict[str, Histogram], done: int) -> None:
        """Write histograms of `done` images. Errors are ignored: a cache is no reason to fail."""
        rows = list(histograms.values())
        with contextlib.suppress(DeblurExportError, OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(
                    file,
                    names=np.array(list(histograms)),
                    counts=np.stack([row.counts for row in rows]),
                    powers=np.array([row.power for row in rows]),
                    ends=np.array([(row.low, row.high) for row in rows]),
                    done=np.array(done),
                )
