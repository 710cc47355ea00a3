"""What both building and running an engine need of TensorRT: log, plugin libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from deblur_export.errors import DeblurExportError

_plugins: set[tuple[str, Path]] = set()  # loaded ones: the registry refuses a library twice


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
    """Load plugin libraries into the registry of `trt`, each once per process.

    Raises:
        DeblurExportError: there is no such file, or the TensorRT `title` cannot load it.
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
    """The newest error, or a sentence that says that there is none."""
    lines = [line for line in map(readable, log.errors) if line]
    return lines[-1] if lines else "the library gives no reason"


def readable(message: str) -> str:
    """A message as one line, without what the library appends if it finds no GPU afterwards."""
    return " ".join(message.split("[checkMacros.cpp", 1)[0].split())
