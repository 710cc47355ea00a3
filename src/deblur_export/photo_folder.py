"""The photos of a folder."""

from __future__ import annotations

from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.image_formats import SUFFIXES


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
        path for path in found if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not photos:
        raise DeblurExportError(f"{folder}: no photos inside ({', '.join(SUFFIXES)})")
    return photos
