"""What the two TensorRTs have in common for the rest of the package, and which one is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import rtx_backend, tensorrt_backend
from deblur_export.export.engines.nvinfer import Built, Listener
from deblur_export.export.engines.options import BuildOptions, Profile
from deblur_export.manifest import Artifact

BackendName = Literal["tensorrt", "rtx"]


class Backend(Protocol):
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


# Each raises DeblurExportError where the backend is not installed, too old, or lacks a GPU or an
# option that was asked for.
OPENERS: Mapping[BackendName, Callable[[BuildOptions], Backend]] = {
    "tensorrt": tensorrt_backend.open_backend,
    "rtx": rtx_backend.open_backend,
}


@dataclass(frozen=True)
class Choice:
    """The backend to use, or None; `reasons` are lines for the user."""

    backend: Backend | None
    reasons: tuple[str, ...]


def choose(name: Literal["tensorrt", "rtx", "auto"], options: BuildOptions) -> Choice:
    """The backend that was named, or with "auto" the first that can build here.

    Raises:
        DeblurExportError: the named backend cannot build here.
    """
    if name == "auto" and options.compute_capabilities:
        name = "rtx"  # alone has them
    if name != "auto":
        return Choice(OPENERS[name](options), ())
    reasons: list[str] = []
    for open_backend in OPENERS.values():
        try:
            backend = open_backend(options)
        except DeblurExportError as error:
            reasons.append(str(error))
        else:
            return Choice(backend, (*reasons, f"using {backend.title}: {backend.reason}"))
    return Choice(None, tuple(reasons))
