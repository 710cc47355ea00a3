"""The photos of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from deblur_export.errors import DeblurExportError
from deblur_export.image_formats import SUFFIXES

Result = TypeVar("Result")
LeaveOut = Callable[[str], None]  # is told of a photo that is left out, and why


def usable(
    photos: Sequence[Path], read: Callable[[Path], Result], leave_out: LeaveOut
) -> list[Result]:
    """What `read` makes of each photo, without those that it cannot read: one of many does not stop
    the others.

    Raises:
        DeblurExportError: none can be read; the message is about the first.
    """
    found, errors = list[Result](), list[DeblurExportError]()
    for photo in photos:
        try:
            found.append(read(photo))
        except DeblurExportError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    for reason in errors:
        leave_out(f"left out: {reason}")
    return found


def photos_in(folder: Path) -> list[Path]:
    """The photos directly in a folder, sorted by name.

    Hidden files do not count: macOS writes a `._cat.jpg` beside `cat.jpg` on foreign disks, which
    is no photo.

    Raises:
        DeblurExportError: the folder does not exist, cannot be read or has no photos.
    """
    if folder.is_file():
        raise DeblurExportError(f"{folder}: this is a file; give the folder of the photos")
    if not folder.is_dir():
        raise DeblurExportError(f"{folder}: no such folder of photos")
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise DeblurExportError(f"{folder}: cannot be read: {error.strerror}") from error
    photos = [
        path
        for path in found
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not photos:
        raise DeblurExportError(f"{folder}: no photos inside ({', '.join(SUFFIXES)})")
    return photos
