"""What a backend says of itself; all verbs loop over the backends and know none by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.export.runtimes.probe import Finding
from deblur_export.export.runtimes.session import Arrays, Session
from deblur_export.precision import GraphPrecision, PrecisionName
from deblur_export.target import TargetName

PROFILED_RUNS = 3  # after those that warm up


@dataclass(frozen=True)
class Opening:
    """How a file is opened.

    Attributes:
        extra_outputs: inner values to return as well.
        precision: of the arithmetic that a float32 graph is computed in.
        threads: 0 for the backend's choice.
        plugins: libraries of custom ops that an engine was built with.
    """

    extra_outputs: tuple[str, ...] = ()
    precision: GraphPrecision = "fp32"
    threads: int = 0
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether `--runtime auto` may take a backend for a file, and why or why not, as a clause that
    follows "as"."""

    able: bool
    reason: str


class Backend(ABC):
    """A library that runs ONNX files or engines.

    Attributes:
        title: for messages.
        package: the distribution that holds it.
        precisions: that it can be asked to compute a float32 graph in.
        computes: precisions of files that it has kernels for.
        takes_engines: engines rather than ONNX files, whose inner values do not show.
        bench_targets: exports of ours that `bench` makes for it; none leaves it out of `bench`.
        compiles_second_run: whether the second run of a size takes longer than the later ones.
    """

    title: str
    package: str
    precisions: tuple[GraphPrecision, ...] = ("fp32",)
    computes: tuple[PrecisionName, ...] = ("fp32",)
    takes_engines: bool = False
    bench_targets: tuple[TargetName, ...] = ()
    compiles_second_run: bool = False

    @abstractmethod
    def able(self, artifact: Artifact) -> Verdict:
        """Whether it is able to run a file here and gains something over ONNX Runtime."""

    @abstractmethod
    def load(self, file: ModelFile, how: Opening) -> Session:
        """Load a file, in one of `precisions`.

        Raises:
            DeblurExportError: the library is not installed or cannot load the file.
        """

    def load_judged(self, artifact: Artifact, how: Opening) -> Session:
        """Load a file of ours for a verdict of `verify`, which must be the same on every machine.

        Raises:
            DeblurExportError: as `load`.
        """
        return self.load(artifact, how)

    def check(self, artifact: Artifact) -> None:
        """Whether it computes what a file needs to restore photos.

        Raises:
            DeblurExportError: it does not; says what does.
        """
        return

    def profile(self, file: ModelFile, feed: Arrays, how: Opening) -> Counter[str]:
        """Seconds of one run by type of operator; empty where it cannot tell.

        Raises:
            DeblurExportError: as `load`.
        """
        return Counter()

    def findings(self) -> Iterable[Finding]:
        """Lines of `doctor`: trials on this machine."""
        return ()
