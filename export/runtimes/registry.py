"""The backends by their names for `--runtime`. Importing this module loads none of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from deblur_export.errors import DeblurExportError

if TYPE_CHECKING:
    from deblur_export.export.runtimes.backend import Backend

FOLDER = "deblur_export.export.runtimes"
DEFAULT = "onnxruntime"  # runs every ONNX file on every machine


@dataclass(frozen=True)
class Entry:
    """Where a backend is: `attribute` of `module`. `peer` begins the names of its peers of
    `bench`; empty for one that `bench` does not measure."""

    module: str
    attribute: str
    peer: str = ""

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of its peers: of the plain export and of our files."""
        return (f"{self.peer}-plain", f"{self.peer}-ours") if self.peer else ()


# `--runtime auto` asks them in this order, the default last.
ENTRIES: dict[str, Entry] = {
    DEFAULT: Entry(f"{FOLDER}.onnxruntime", "CPU", peer="ort"),
    "onnxruntime-cuda": Entry(f"{FOLDER}.onnxruntime", "CUDA"),
    "openvino": Entry(f"{FOLDER}.openvino", "OPENVINO", peer="openvino"),
    "tensorrt": Entry(f"{FOLDER}.tensorrt", "TENSORRT"),
}


def backend(name: str) -> Backend:
    """Load a backend.

    Raises:
        DeblurExportError: there is none of this name.
    """
    if name not in ENTRIES:
        raise DeblurExportError(f"no runtime '{name}'; there are {', '.join(ENTRIES)}")
    entry = ENTRIES[name]
    found: Backend = getattr(import_module(entry.module), entry.attribute)
    return found


def backends() -> Iterator[tuple[str, Backend]]:
    """All backends with their names, in the order of `ENTRIES`."""
    return ((name, backend(name)) for name in ENTRIES)
