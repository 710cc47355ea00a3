"""A backend of a test: ONNX's own reference evaluator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from deblur_export.artifact import Artifact, ModelFile
from deblur_export.export.graph import with_outputs
from deblur_export.export.runtimes.backend import Backend, Opening, Verdict
from deblur_export.export.runtimes.probe import Finding, try_package
from deblur_export.export.runtimes.session import Arrays, Session


class ToySession:
    """A `runtimes.Session`."""

    title = "Toy 1.0"
    notes = ("a toy ran it",)

    def __init__(self, file: ModelFile, extra_outputs: tuple[str, ...]) -> None:
        model = with_outputs(file.proto, extra_outputs)
        self.evaluator = ReferenceEvaluator(model)
        self.names = [output.name for output in model.graph.output]

    def run(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        values = self.evaluator.run(None, dict(feed))
        return dict(zip(self.names, map(np.asarray, values), strict=True))


class Toy(Backend):
    title = "Toy"
    package = "onnx"
    bench_targets = ("portable",)

    def able(self, artifact: Artifact) -> Verdict:
        return Verdict(True, "nothing else is wanted")

    def load(self, file: ModelFile, how: Opening) -> Session:
        return ToySession(file, how.extra_outputs)

    def findings(self) -> Iterable[Finding]:
        yield try_package(self.package, "import onnx.reference", "onnx", runs=self.title)


TOY = Toy()
