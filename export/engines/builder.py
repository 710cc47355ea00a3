"""The common interface of TensorRT and TensorRT for RTX."""

from __future__ import annotations

from typing import Protocol

from deblur_export.artifact import Artifact
from deblur_export.engine_record import Profile
from deblur_export.export.engines.nvinfer import Built, Listener
from deblur_export.export.engines.options import BuildOptions


class Builder(Protocol):
    """A builder of engines that is installed and can build on this machine.

    `title` is its name with its version; `reason` says why it can build, for `--backend auto`;
    `covers` says on which GPUs its engines run, for `doctor`; `suffix` is that of its engines.
    """

    title: str
    version: str
    reason: str
    covers: str
    suffix: str

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
