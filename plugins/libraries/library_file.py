"""Where a native library of the custom ops lies, and whether it can be used.

Each lies beside this file, where `deblur-export plugins build` writes it, or where an environment
variable says. If the value of that variable is `none`, no library is used.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

REMEDY = "`deblur-export plugins build` makes it anew"


class Found(NamedTuple):
    """The path of the library, or None and the reason, one line."""

    path: Path | None
    reason: str = ""


@dataclass(frozen=True)
class LibraryFile:
    """A library: its file name, and the environment variable that says where else it lies."""

    name: str
    variable: str

    @property
    def packaged(self) -> Path:
        """Beside this file."""
        return Path(__file__).parent / self.name

    def path(self) -> Path | None:
        """Where it should be; None where it is switched off."""
        path = os.environ.get(self.variable)
        if path == "none":
            return None
        return Path(path) if path else self.packaged

    def find(self) -> Found:
        """The file, if there is one."""
        path = self.path()
        if path is None:
            return Found(None, f"switched off by {self.variable}=none")
        if not path.exists():
            return Found(None, f"no {path}; `deblur-export plugins build` makes it")
        return Found(path.absolute())

    def find_marked(self, mark: re.Pattern[bytes], fault: Callable[..., str]) -> Found:
        """The file, if it says of itself that it fits; it is read, not loaded.

        Args:
            mark: the string in the file that says what it was made for.
            fault: called with the groups of the mark as text; returns what is wrong with them, or
                "" if they fit.
        """
        found = self.find()
        if found.path is None:
            return found
        try:
            mark_of_file = mark.search(found.path.read_bytes())
        except OSError as error:
            return Found(None, f"{found.path}: {error.strerror}")
        if mark_of_file is None:
            return Found(None, f"{found.path} is no library of these ops; {REMEDY}")
        if wrong := fault(*(group.decode() for group in mark_of_file.groups())):
            return Found(None, f"{found.path} {wrong}; {REMEDY}")
        return found

    def load(self, opened: Callable[[Path], ctypes.CDLL], kernels: str) -> ctypes.CDLL | None:
        """The loaded library, or None.

        Args:
            opened: loads a file and declares its functions. Where it raises OSError or
                AttributeError, a warning is logged and the result is None; where no file was built,
                the result is None without a warning.
            kernels: what the warning calls them.
        """
        path = self.path()
        if path is None or (path == self.packaged and not path.exists()):
            return None
        try:
            return opened(path.resolve())
        except (OSError, AttributeError) as error:
            reason = " ".join(str(error).split())
            logging.getLogger("deblur_export").warning(
                "%s not used: %s: %s; %s", kernels, path, reason, REMEDY
            )
            return None
