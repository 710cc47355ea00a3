"""What the two TensorRTs have in common for the rest of the package, and which one is used."""

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
    """A builder of engines that is installed and able to build here.

    `title` names it with its version; `reason` says why it is able to, for `--backend auto`.
    """

    title: str
    version: str
    reason: str

    def check(self, artifact: Artifact) -> None:
        """Whether it takes files of this form, before work is put into one.

        Raises:
            DeblurExportError: it does not; says which form it takes.
        """
        ...

    def build(
        self, artifact: Artifact, profile: Profile | None, options: BuildOptions, listener: Listener
    ) -> Built:
        """Parse and build a strongly typed file.

        Raises:
            DeblurExportError: the file is not taken, see `check`, or does not build.
            KeyboardInterrupt: the user stopped the build.
        """
        ...


@dataclass(frozen=True)
class Entry:
    """A builder that may be installed. `package` is the distribution that holds it, `install` what
    brings it. `make` raises DeblurExportError where it is not installed, too old, or lacks a GPU or
    an option that was asked for."""

    package: str
    install: str
    make: Callable[[BuildOptions], Builder]


BUILDERS: Mapping[BuilderName, Entry] = {
    "tensorrt": Entry("tensorrt", "deblur-export[trt]", tensorrt_builder.open_builder),
    "rtx": Entry("tensorrt-rtx", "deblur-export[rtx]", rtx_builder.open_builder),
}


@dataclass(frozen=True)
class Choice:
    """The builder to use, or None; `reasons` are lines for the user."""

    builder: Builder | None
    reasons: tuple[str, ...]


def choose(name: Literal["tensorrt", "rtx", "auto"], options: BuildOptions) -> Choice:
    """The builder that was named, or with "auto" the first that can build here.

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
