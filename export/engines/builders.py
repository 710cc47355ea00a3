"""The common interface of TensorRT and TensorRT for RTX, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from deblur_export.artifact import Artifact
from deblur_export.engine_record import Profile
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import rtx_builder, tensorrt_builder
from deblur_export.export.engines.nvinfer import Built, Listener
from deblur_export.export.engines.options import BuildOptions

BuilderName = Literal["tensorrt", "rtx"]


class Builder(Protocol):
    """A builder of engines that is installed and can build on this machine.

    `title` is its name with its version; `reason` says why it can build, for `--backend auto`;
    `covers` says on which GPUs its engines run, for `doctor`.
    """

    title: str
    version: str
    reason: str
    covers: str

    def check(self, artifact: Artifact) -> None:
        """Check that it supports files of this form, before any work is done on one.

        Raises:
            DeblurExportError: it does not; the message says which form it supports.
        """
        ...

    def build(
        self, artifact: Artifact, profile: Profile | None, options: BuildOptions, listener: Listener
    ) -> Built:
        """Parse and build a strongly typed file.

        Raises:
            DeblurExportError: the file is not supported, see `check`, or cannot be built.
            KeyboardInterrupt: the user stopped the build.
        """
        ...


@dataclass(frozen=True)
class Entry:
    """A builder that may be installed. `package` is the Python distribution that contains it,
    `install` what the user passes to pip. `make` raises DeblurExportError if it is not installed,
    too old, or lacks a GPU or a requested option."""

    package: str
    install: str
    make: Callable[[BuildOptions], Builder]


BUILDERS: Mapping[BuilderName, Entry] = {
    "tensorrt": Entry("tensorrt", "deblur-export[trt]", tensorrt_builder.open_builder),
    "rtx": Entry("tensorrt-rtx", "deblur-export[rtx]", rtx_builder.open_builder),
}


@dataclass(frozen=True)
class Choice:
    """The builder to use, or None; `reasons` are lines for the user that say why."""

    builder: Builder | None
    reasons: tuple[str, ...]


def choose(name: Literal["tensorrt", "rtx", "auto"], options: BuildOptions) -> Choice:
    """The builder of this name, or with "auto" the first that can build on this machine.

    Raises:
        DeblurExportError: the named builder cannot build here.
    """
    if name == "auto" and options.compute_capabilities:
        name = "rtx"  # alone has them
    if name != "auto":
        return Choice(BUILDERS[name].make(options), ())
    reasons: list[str] = []
    for entry in BUILDERS.values():
        try:
            builder = entry.make(options)
        except DeblurExportError as error:
            reasons.append(str(error))
        else:
            return Choice(builder, (*reasons, f"using {builder.title}: {builder.reason}"))
    return Choice(None, tuple(reasons))
