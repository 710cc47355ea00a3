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
    """Where a backend is: `attribute` of `module`. `bench_prefix` is the prefix of its names in
    `bench`; empty if `bench` does not measure it."""

    module: str
    attribute: str
    bench_prefix: str = ""

    @property
    def bench_names(self) -> tuple[str, ...]:
        """Its names in `bench`: with the plain torch.onnx.export, and with exported files."""
        forms = ("plain", "optimized") if self.bench_prefix else ()
        return tuple(f"{self.bench_prefix}-{form}" for form in forms)


# `--runtime auto` asks them in this order, the default last.
ENTRIES: dict[str, Entry] = {
    DEFAULT: Entry(f"{FOLDER}.onnxruntime", "CPU", bench_prefix="ort"),
    "onnxruntime-cuda": Entry(f"{FOLDER}.onnxruntime", "CUDA"),
    "openvino": Entry(f"{FOLDER}.openvino", "OPENVINO", bench_prefix="openvino"),
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
