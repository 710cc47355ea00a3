"""Whether a command may write its outputs: checked before any work, by every verb and function."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.image_formats import SUFFIXES

Key = tuple[object, ...]
# What is read in a folder that is given for its photos, or as a dataset.
READ_IN_FOLDERS = frozenset({*SUFFIXES, ".npy"})


def check_outputs(
    writes: Iterable[tuple[str, Path | None]],
    reads: Iterable[Path | None] = (),
    advice: str = "choose another name",
    *,
    makes_folders: bool = False,
) -> None:
    """Check that a command can write its outputs, and that none of them replaces an input or
    another output.

    Paths are the same if they lead to the same file: through "..", links, or letters of another
    case where the file system ignores case.

    Args:
        writes: what each output is, for messages ("the JSON report"), and its path.
        reads: files that the command reads. A folder stands for the photos and arrays in it.
            None is left out, here and in `writes`.
        advice: what to do about paths that lead to the same file, for messages.
        makes_folders: whether the command makes the folders of its outputs.

    Raises:
        DeblurExportError: an output is an input or another output, is a folder or a device, or its
            folder is missing or cannot be written to.
    """
    place = _Places()
    read: set[Key] = set()
    folders: list[Path] = []
    for path in reads:
        if path is None:
            continue
        read.update(place.keys(path))
        if path.is_dir():
            folders.append(path.resolve())
    written: dict[Key, str] = {}
    for what, path in writes:
        if path is None:
            continue
        keys = place.keys(path)
        if not read.isdisjoint(keys) or _is_inside(path, folders):
            raise DeblurExportError(
                f"{path}: {what} would overwrite this file, which is read; {advice}"
            )
        for other in (written[key] for key in keys if key in written):
            raise DeblurExportError(f"{path}: {other} and {what} would both be this file; {advice}")
        _check_writable(what, path, makes_folders)
        written.update(dict.fromkeys(keys, what))


def check_plots() -> None:
    """Check that plots can be drawn, which needs matplotlib.

    Raises:
        DeblurExportError: it is not installed.
    """
    if find_spec("matplotlib") is None:
        raise DeblurExportError(
            "--plot needs matplotlib, which is not installed; pip install 'deblur-export[plots]'"
        )


class _Places:
    """Finds what identifies the file of a path; each folder is looked at once."""

    def __init__(self) -> None:
        self.ignores_case: dict[Path, bool] = {}

    def keys(self, path: Path) -> list[Key]:
        """Two paths lead to the same file if they have a key in common. A file that does not exist
        yet has its path only."""
        try:
            resolved = path.resolve()
            known = path.stat() if path.exists() else None
        except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a NUL
            said = getattr(error, "strerror", None) or str(error)
            raise DeblurExportError(f"{path}: not a usable path: {said}") from error
        folder = resolved.parent
        if folder not in self.ignores_case:
            self.ignores_case[folder] = _ignores_case(folder)
        name = str(resolved)
        if self.ignores_case[folder]:
            name = unicodedata.normalize("NFC", name).casefold()
        keys: list[Key] = [(name,)]
        if known is not None and known.st_ino:
            keys.append((known.st_dev, known.st_ino))
        return keys


def _ignores_case(folder: Path) -> bool:
    """Whether a folder takes "A.png" and "a.png" for the same file."""
    for known in _existing(folder):
        other = known.with_name(known.name.swapcase())
        if other.name != known.name:
            return other.exists() and known.samefile(other)
    return False


def _existing(folder: Path) -> Iterator[Path]:
    """Files and folders on the file system of a folder, which need not exist yet."""
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries)
    except OSError:
        pass
    yield from (path for path in (folder, *folder.parents) if path.exists() and path.name)


def _is_inside(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path is an existing file of the kinds that are read in `folders`."""
    if path.suffix.lower() not in READ_IN_FOLDERS or not path.exists():
        return False
    parents = path.resolve().parents
    return any(folder in parents for folder in folders)


def _check_writable(what: str, path: Path, makes_folders: bool) -> None:
    if path.is_dir():
        raise DeblurExportError(f"{path}: {what} cannot be written: this is a folder")
    if path.exists() and not path.is_file():
        raise DeblurExportError(
            f"{path}: {what} cannot be written: this is not an ordinary file; choose another name"
        )
    folder = path.absolute().parent
    if makes_folders:
        folder = next(known for known in (folder, *folder.parents) if known.exists())
        if not folder.is_dir():
            raise DeblurExportError(f"{path}: no such folder can be made: {folder} is a file")
    elif not folder.is_dir():
        raise DeblurExportError(f"{path}: no such folder; create it first")
    if not os.access(folder, os.W_OK):
        raise DeblurExportError(
            f"{path}: {what} cannot be written: no permission to write in its folder; choose a "
            "folder that you may write to"
        )
