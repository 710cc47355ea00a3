"""The builders of engines by their names for `--backend`. Importing this module loads none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deblur_export.export.engines.builder import Builder
    from deblur_export.export.engines.options import BuildOptions

FOLDER = "deblur_export.export.engines"
BuilderName = Literal["tensorrt", "rtx"]


@dataclass(frozen=True)
class Entry:
    """A builder that may be installed.

    Attributes:
        module: where its `open_builder` is.
        package: the Python distribution that contains it.
        install: what the user passes to pip.
        description: for the help of `--backend`.
    """

    module: str
    package: str
    install: str
    description: str

    def make(self, options: BuildOptions) -> Builder:
        """Open the builder.

        Raises:
            CannotBuildHereError: it is not installed, too old, or lacks a GPU.
            DeblurExportError: it does not have a requested option.
        """
        builder: Builder = import_module(self.module).open_builder(options)
        return builder


# `--backend auto` asks them in this order.
ENTRIES: Mapping[BuilderName, Entry] = {
    "tensorrt": Entry(
        f"{FOLDER}.tensorrt_builder",
        "tensorrt",
        "deblur-export[trt]",
        "on the GPU for which the engine is, or the commands for a machine that has one",
    ),
    "rtx": Entry(
        f"{FOLDER}.rtx_builder",
        "tensorrt-rtx",
        "deblur-export[rtx]",
        "TensorRT for RTX, needs no GPU here",
    ),
}
BackendChoice = Literal["auto", "tensorrt", "rtx"]
BACKENDS: tuple[BackendChoice, ...] = ("auto", *ENTRIES)
