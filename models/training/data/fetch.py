"""Get the photos of `photo_table` from Debian packages, by apt-get, and from scikit-image's wheel.

Nothing is installed: the packages are downloaded into a temporary folder and unpacked there.
GCompris keeps its photos in Qt resource archives (.rcc), whose format Qt documents in the source
of `rcc` and QResource: a tree of big-endian records, names in UTF-16, and blobs, each preceded by
its length.
"""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.models.training.data.photo_table import PHOTOS, Photo
from deblur_export.temporary import temporary_folder

WHEEL = "scikit-image"
MAGIC = b"qres"
HEADER = struct.Struct(">4s4I")  # magic, version, offsets of tree, blobs and names
FOLDER, COMPRESSED = 2, 1 | 4


def fetch(folder: Path) -> Iterator[tuple[Photo, bool]]:
    """Copy every listed photo into `folder`.

    Yields:
        Each photo, and whether its package contains it.

    Raises:
        DeblurExportError: apt-get or scikit-image is missing, or a download failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package, photos in groupby(PHOTOS, key=lambda photo: photo.package):
        with temporary_folder() as temporary:
            root = _wheel_folder() if package == WHEEL else _unpack(package, temporary)
            for photo in photos:
                data = _read(root, photo.member)
                if data is not None:
                    (folder / photo.name).write_bytes(data)
                yield photo, data is not None


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DeblurExportError("scikit-image, which ships some of the photos, is not installed")
    return Path(spec.origin).parent / "data"


def _unpack(package: str, folder: Path) -> Path:
    """Download a Debian package and unpack it in `folder`."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DeblurExportError(
            f"the photos of {package} come from Debian or Ubuntu, but apt-get and dpkg-deb are not "
            "installed here. Copy them from such a machine, or use a folder of your own photos"
        )
    _run(["apt-get", "download", package], folder)
    for archive in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", archive.name, "."], folder)
    return folder


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        encoding="locale",
        errors="backslashreplace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise DeblurExportError(f"{' '.join(command)} failed: {said[-1]}")


def _read(root: Path, member: str) -> bytes | None:
    """Read a file below `root`, or a file inside a resource archive; None if there is none."""
    file, _, inside = member.partition(":")
    path = root / file
    if not path.is_file():
        return None
    return read_resource(path.read_bytes(), inside) if inside else path.read_bytes()


def read_resource(archive: bytes, path: str) -> bytes | None:
    """Read one uncompressed file of a Qt resource archive.

    Args:
        archive: the content of the .rcc file.
        path: of the file inside the archive, with "/" between folders.

    Returns:
        The content of the file, or None if the archive holds no such file.

    Raises:
        DeblurExportError: this is not a resource archive, it is truncated, or the file is
            compressed.
    """
    if archive[:4] != MAGIC:
        raise DeblurExportError("not a Qt resource archive")
    try:
        return _find(archive, path.strip("/").split("/"))
    except struct.error as error:
        raise DeblurExportError("truncated Qt resource archive") from error


def _find(archive: bytes, parts: list[str]) -> bytes | None:
    _, version, tree, blobs, names = HEADER.unpack_from(archive)
    size = 14 if version == 1 else 22
    record = 0
    for part in parts:
        count, first = struct.unpack_from(">II", archive, tree + record * size + 6)
        starts = ((i, tree + i * size) for i in range(first, first + count))
        record = next((i for i, start in starts if _name(archive, start, names) == part), -1)
        if record < 0:
            return None
    _, flags, _, _, offset = struct.unpack_from(">IHHHI", archive, tree + record * size)
    if flags & (FOLDER | COMPRESSED):
        raise DeblurExportError(f"{'/'.join(parts)}: is a folder or compressed, not a plain file")
    (length,) = struct.unpack_from(">I", archive, blobs + offset)
    return archive[blobs + offset + 4 : blobs + offset + 4 + length]


def _name(archive: bytes, record: int, names: int) -> str:
    """The name of the record that starts at byte `record`."""
    (offset,) = struct.unpack_from(">I", archive, record)
    (length,) = struct.unpack_from(">H", archive, names + offset)
    start = names + offset + 6  # the length and a hash come first
    return archive[start : start + 2 * length].decode("utf-16-be")
