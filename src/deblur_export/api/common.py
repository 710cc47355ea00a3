"""Common parts of the API functions: files by path or as artifacts, and a lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from deblur_export.artifact import Artifact
from deblur_export.engine_file import read_runnable

PathLike = str | os.PathLike[str]
Progress = Callable[[str], None]

# PyTorch's exporter sets process-wide flags that a network running in another thread would see, and
# verification hooks into modules: one such call at a time. Sessions do not need it.
TORCH_LOCK = threading.RLock()


def quiet(step: str) -> None:
    """The progress callback that shows nothing."""


def as_artifact(file: Artifact | PathLike) -> Artifact:
    """An artifact, or the one at a path.

    Raises:
        DeblurExportError: there is no file, or this package did not write it.
    """
    return file if isinstance(file, Artifact) else read_runnable(Path(file))


def as_path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)
