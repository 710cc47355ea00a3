"""Link the top-level folders of the source tree into the package: `python links.py`.

src/deblur_export/NAME leads to the folder NAME at the top. Git does not hold these links, because
neither a ZIP of the sources nor a clone on Windows keeps them. setup.py makes them where they are
missing; a tree that is used without being installed needs one call of this file. On Windows they
are directory junctions, which take no special rights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDERS = ("calibration", "export", "models", "plugins")


class LinkError(Exception):
    """A link cannot be made; the message is one line."""


def make_links(root: Path) -> None:
    """Make the links that are missing in the source tree at `root`.

    A source distribution holds the folders themselves inside the package; they stay as they are.

    Raises:
        LinkError: a folder is missing, something else is in a link's place, or the file system
            refuses links.
    """
    for name in FOLDERS:
        folder, link = root / name, root / "src/deblur_export" / name
        if link.is_dir():
            if folder.is_dir() and not link.samefile(folder):
                raise LinkError(f"{link} does not lead to {folder}: remove it")
            continue
        if not folder.is_dir():
            raise LinkError(f"{folder} is missing: the source tree is not whole")
        _remove_remains(link)
        try:
            _link(folder, link)
        except FileExistsError:
            pass  # another process made it
        except OSError as error:
            raise LinkError(f"cannot link {link} to {folder}: {error.strerror}") from error


def _remove_remains(link: Path) -> None:
    """Remove a link to nowhere, and the text file that Git writes where links are switched off.

    Raises:
        LinkError: it is another file.
    """
    if link.is_symlink():
        link.unlink()
    elif link.is_file():
        if link.read_bytes().strip() != f"../../{link.name}".encode():
            raise LinkError(f"{link} is a file in the place of a link: remove it")
        link.unlink()


def _link(folder: Path, link: Path) -> None:
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(folder.resolve()), str(link))
    else:
        link.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)


if __name__ == "__main__":
    try:
        make_links(Path(__file__).resolve().parent)
    except LinkError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
