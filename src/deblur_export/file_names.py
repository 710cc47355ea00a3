"""Names of files from outside: some are longer than a file system takes, or hold a null."""

from __future__ import annotations

import os


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; `Path.is_file` raises OSError for a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113
