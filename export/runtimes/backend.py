"""What a backend says of itself; all verbs loop over the backends and know none by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.export.runtimes.loading import OPEN, try_file
from deblur_export.export.runtimes.probe import Finding, installed
from deblur_export.export.runtimes.session import Arrays, Session
from deblur_export.precision import GraphPrecision, PrecisionName
from deblur_export.target import TargetName

PROFILED_RUNS = 3  # after those that warm up


@dataclass(frozen=True)
class Opening:
    """How a file is opened.

    Attributes:
        extra_outputs: names of intermediate values to return in addition to the outputs.
        precision: in which a float32 graph is computed.
        threads: number of CPU threads; 0 leaves the number to the backend.
        plugins: libraries of the custom ops that an engine was built with.
    """

    extra_outputs: tuple[str, ...] = ()
    precision: GraphPrecision = "fp32"
    threads: int = 0
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether `--runtime auto` may use a backend for a file, and the reason, worded as a clause
    that follows "as"."""

    able: bool
    reason: str


class Backend(ABC):
    """A library that runs ONNX files or engines.

    Attributes:
        title: its name in messages.
        package: the Python distribution that contains it.
        precisions: those in which it can compute a float32 graph on request.
        computes: precisions of files for which it has kernels.
        runs_engines: whether it runs engines rather than ONNX files; the intermediate values of
            an engine cannot be read.
        bench_targets: export targets that `bench` measures on it; `bench` leaves out a backend
            without any.
        compiles_second_run: whether the second run of an image size takes longer than later ones.
    """

    title: str
    package: str
    precisions: tuple[GraphPrecision, ...] = ("fp32",)
    computes: tuple[PrecisionName, ...] = ("fp32",)
    runs_engines: bool = False
    bench_targets: tuple[TargetName, ...] = ()
    compiles_second_run: bool = False

    @abstractmethod
    def able(self, artifact: Artifact) -> Verdict:
        """Whether it can run a file on this machine and is faster or more capable than ONNX
        Runtime on the CPU."""

    @abstractmethod
    def load(self, file: ModelFile, how: Opening) -> Session:
        """Load a file and compute it in `how.precision`, one of `precisions`.

        Raises:
            DeblurExportError: the library is not installed or cannot load the file.
        """

    def load_reproducible(self, artifact: Artifact, how: Opening) -> Session:
        """Load an exported file for `verify`, whose result must be the same on every machine.

        Raises:
            DeblurExportError: as `load`.
        """
        return self.load(artifact, how)

    def check(self, artifact: Artifact) -> None:
        """Check that it can compute the precision of a file.

        Raises:
            DeblurExportError: it cannot; the message names the backends that can.
        """
        return

    def profile(self, file: ModelFile, feed: Arrays, how: Opening) -> Counter[str]:
        """Seconds that one run spends in each operator type; empty if the backend cannot measure
        them.

        Raises:
            DeblurExportError: as `load`.
        """
        return Counter()

    def findings(self) -> Iterable[Finding]:
        """Lines of `doctor`: the results of trials on this machine."""
        return ()

    def loads(self, path: Path, name: str) -> Iterable[Finding]:
        """Lines of `doctor FILE`: whether it loads a file, tried on this machine.

        Args:
            path: an ONNX file if the backend runs those, otherwise an engine.
            name: that of the backend.
        """
        if installed(self.package):
            yield try_file(self.title, self.package, OPEN, path, name)
