"""The choice between the builders."""

from __future__ import annotations

from dataclasses import dataclass

from deblur_export.errors import DeblurExportError
from deblur_export.export.engines.builder import Builder
from deblur_export.export.engines.nvinfer import CannotBuildHereError
from deblur_export.export.engines.options import BuildOptions
from deblur_export.export.engines.registry import ENTRIES, BackendChoice

WITH_COMMANDS = "tensorrt"  # the builder for which there are commands for another machine


@dataclass(frozen=True)
class Choice:
    """The builder to use, or None; `reasons` are lines for the user that say why."""

    builder: Builder | None
    reasons: tuple[str, ...]


def choose(name: BackendChoice, options: BuildOptions) -> Choice:
    """The builder of this name, or with "auto" the first that can build on this machine.

    There is none where TensorRT was named and cannot build here, or nothing can: the user then gets
    the commands for a machine where it can.

    Raises:
        DeblurExportError: the named builder does not have an option, or TensorRT for RTX was named
            and is not installed.
    """
    if name == "auto" and options.compute_capabilities:
        name = "rtx"  # alone has them
    if name != "auto":
        try:
            return Choice(ENTRIES[name].make(options), ())
        except CannotBuildHereError as error:
            if name != WITH_COMMANDS:
                raise
            return Choice(None, (str(error),))
    reasons: list[str] = []
    for entry in ENTRIES.values():
        try:
            builder = entry.make(options)
        except DeblurExportError as error:
            reasons.append(str(error))
        else:
            return Choice(builder, (*reasons, f"using {builder.title}: {builder.reason}"))
    return Choice(None, tuple(reasons))
