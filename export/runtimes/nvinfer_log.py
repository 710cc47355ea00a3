"""What building and running an engine share of TensorRT: the log, plugin libraries, versions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from deblur_export.errors import DeblurExportError

_plugins: set[tuple[str, Path]] = set()  # each library's registry refuses one that it has


def version_tuple(version: str) -> tuple[int, ...]:
    """ "10.3.0.26" -> (10, 3, 0, 26)."""
    return tuple(map(int, re.findall(r"\d+", version)))


def message_log(trt: ModuleType) -> Any:
    """A logger that keeps the library's errors in `errors` and prints nothing."""

    class MessageLog(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.ERROR):
                self.errors.append(message)

    return MessageLog()


def load_plugins(trt: ModuleType, libraries: Sequence[Path], title: str, log: Any) -> None:
    """Put plugin libraries into the registry of `trt`, each once a process.

    Raises:
        DeblurExportError: there is no such file, or `title` does not take it.
    """
    registry = trt.get_plugin_registry()
    for library in libraries:
        if not library.is_file():
            raise DeblurExportError(f"--plugins {library}: no such file")
        entry = (trt.__name__, library.resolve())
        if entry not in _plugins and registry.load_library(str(entry[1])) is None:
            raise DeblurExportError(
                f"--plugins {library}: not a plugin library that {title} can load ({last(log)})"
            )
        _plugins.add(entry)


def last(log: Any) -> str:
    """The newest error, or that there is none."""
    lines = [line for line in map(readable, log.errors) if line]
    return lines[-1] if lines else "the library gives no reason"


def readable(message: str) -> str:
    """One line, without what the library adds when it then finds no GPU to clean up."""
    return " ".join(message.split("[checkMacros.cpp", 1)[0].split())
