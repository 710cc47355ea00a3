"""Temporary files and folders. Those of a process that was killed are removed by a later one.

A name is `.deblur-export-`, eight digits for the host and sixteen at random. Whoever makes one
holds a lock on it (flock), which the system releases when the process ends, in whatever way. What
has such a name, was made on this host by this user and can be locked is therefore in nobody's use.
Where the system or the disk has no such locks, nothing is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PREFIX = ".deblur-export-"


@contextlib.contextmanager
def temporary_file(folder: Path, suffix: str) -> Iterator[Path]:
    """An empty file in `folder`, which must exist. At the end it is removed if it is still there.

    Raises OSError.
    """
    with _made(folder, suffix, _create) as path:
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder in `parent`, by default the system's folder for temporary files, where other
    users cannot read it. At the end it is removed with its content if it is still there.

    Raises OSError.
    """
    mode = 0o700 if parent is None else 0o777
    create = partial(Path.mkdir, mode=mode)
    with _made(parent or Path(tempfile.gettempdir()), "", create) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder. Each process looks once into each."""
    with contextlib.suppress(OSError):
        _remove_leftovers(folder.resolve())


@cache
def _remove_leftovers(folder: Path) -> None:
    name = re.compile(rf"{re.escape(PREFIX + _host())}-[0-9a-f]{{16}}(\.\w+)?")
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]
    for path in found:
        with contextlib.suppress(OSError):  # in use, or gone
            _remove_if_unused(path)


def _remove_if_unused(path: Path) -> None:
    about = path.lstat()
    is_folder = stat.S_ISDIR(about.st_mode)
    if not (is_folder or stat.S_ISREG(about.st_mode)) or about.st_uid != _user():
        return
    descriptor = _lock(path)
    if descriptor is None:
        return
    try:
        if is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _made(folder: Path, suffix: str, create: Callable[[Path], None]) -> Iterator[Path]:
    """A new file or folder, locked."""
    remove_leftovers(folder)
    while True:
        path = folder / f"{PREFIX}{_host()}-{secrets.token_hex(8)}{suffix}"
        create(path)
        # Before it is locked, a process that looks for leftovers may take it for one.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            descriptor = _lock(path)
            if descriptor is None or path.exists():
                break
            os.close(descriptor)
    try:
        yield path
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _create(path: Path) -> None:
    # os.open and not mkstemp: mkstemp's files are 0600 whatever the umask.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def _lock(path: Path) -> int | None:
    """Lock a file or folder.

    Returns:
        The descriptor that holds the lock until it is closed; None if there are no locks here.

    Raises:
        BlockingIOError: another process holds the lock.
        FileNotFoundError: there is nothing at `path`.
    """
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:  # a strange umask
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _user() -> int | None:
    return None if sys.platform == "win32" else os.geteuid()


@cache
def _host() -> str:
    """Eight digits for this host: a shared disk may hold files of others, whose locks are not seen
    here."""
    return hashlib.sha256(platform.node().encode(errors="replace")).hexdigest()[:8]
