"""Files and folders that are either written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.temporary import temporary_file, temporary_folder

_ADVICE = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EFBIG: "the disk or a limit (ulimit -f) forbids files of this size: choose another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder on a disk that can be written to",
    errno.ENOENT: "create its folder first",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`; a body that ends well renames it to `path`.

    The temporary file has the suffix of `path` and a hidden name. If the body raises anything
    (KeyboardInterrupt included), the temporary file is removed and an older `path` is untouched;
    if the process is killed, a later one removes it (see `temporary`).
    Permissions follow the umask; no folder is created; a symbolic link at `path` is replaced,
    not followed.

    Raises DeblurExportError for any OSError, the body's included, and where `path` exists but is
    not a regular file (renaming over /dev/null as root would replace the device).
    """
    try:
        if path.exists() and not path.is_file():
            raise DeblurExportError(
                f"{path}: cannot be written: it is not an ordinary file; choose another name"
            )
        with temporary_file(path.parent, path.suffix) as temporary:
            yield temporary
            temporary.replace(path)
    except OSError as exc:
        raise DeblurExportError(f"{path}: cannot be written: {_reason(exc)}") from exc


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `folder`; a body that ends well renames it.

    If the body raises anything, the temporary folder vanishes with all that was written into it;
    if the process is killed, a later one removes it.
    Missing parents are created.

    Raises DeblurExportError for any OSError, the body's included.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent) as temporary:
            yield temporary
            temporary.rename(folder)
    except OSError as exc:
        raise DeblurExportError(f"{folder}: cannot be written: {_reason(exc)}") from exc


def _reason(exc: OSError) -> str:
    """What the system said and, where known, what to do; one line."""
    said = exc.strerror or " ".join(str(exc).split()) or type(exc).__name__
    advice = _ADVICE.get(exc.errno) if exc.errno is not None else None
    return f"{said}; {advice}" if advice else said
