"""The candidates of a measurement, and its rows: one for each network, candidate, file and
precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.registry import ENTRIES, backend
from deblur_export.export.timing.jobs import TORCH, Original
from deblur_export.precision import GRAPH_PRECISIONS, PRECISIONS, GraphPrecision
from deblur_export.target import TargetName

if TYPE_CHECKING:
    from deblur_export.export.timing.subjects import Subject

TIMED: tuple[GraphPrecision, ...] = tuple(p for p in GRAPH_PRECISIONS if PRECISIONS[p].timed)
BASELINE = "ort-plain"
REFERENCE = "torch-eager"


@dataclass(frozen=True)
class Kind:
    """A way to run a network.

    Attributes:
        name: for `--candidates`.
        engine: PyTorch (`TORCH`) or the name of a backend.
        precisions: those in which it can compute a float32 graph.
        plain: whether it runs the plain torch.onnx.export.
        optimized: whether it runs files exported by this package.
        native: whether PyTorch uses the native kernels of the custom ops.
        compiled: whether PyTorch compiles the network.
    """

    name: str
    engine: str
    precisions: tuple[GraphPrecision, ...] = TIMED
    plain: bool = False
    optimized: bool = False
    native: bool = False
    compiled: bool = False


def _kinds() -> Iterator[Kind]:
    """PyTorch with the definitions of the custom ops, with native kernels, and compiled; then the
    plain export and exported files on every backend that `bench` measures."""
    yield Kind("torch-eager", TORCH)
    yield Kind("torch-native", TORCH, ("fp32",), native=True)
    yield Kind("torch-compile", TORCH, native=True, compiled=True)
    for name, entry in ENTRIES.items():
        if entry.bench_names:
            plain, optimized = entry.bench_names
            precisions = tuple(p for p in TIMED if p in backend(name).precisions)
            yield Kind(plain, name, precisions, plain=True)
            yield Kind(optimized, name, precisions, optimized=True)


CANDIDATES: Mapping[str, Kind] = {kind.name: kind for kind in _kinds()}
# Targets that --model exports, by the backend that runs them.
EXPORTED: Mapping[str, tuple[TargetName, ...]] = {
    kind.engine: backend(kind.engine).bench_targets
    for kind in CANDIDATES.values()
    if kind.optimized
}


@dataclass(frozen=True)
class Row:
    """One candidate in one precision. Either `file` is given, or `target` is the target of the
    export that it runs."""

    label: str
    subject: Subject
    kind: Kind
    precision: GraphPrecision
    file: Path | None = None
    target: TargetName | None = None


def chosen_candidates(names: Iterable[str]) -> tuple[Kind, ...]:
    """The candidates of these names in the order of `CANDIDATES`; all of them without names.

    Raises:
        DeblurExportError: there is no candidate of a name.
    """
    names = set(names)
    if unknown := sorted(names - set(CANDIDATES)):
        raise DeblurExportError(
            f"unknown candidate '{unknown[0]}'; there are {', '.join(CANDIDATES)}"
        )
    return tuple(kind for name, kind in CANDIDATES.items() if not names or name in names)


def plan(
    subjects: Sequence[Subject], kinds: Iterable[Kind], precisions: Sequence[GraphPrecision]
) -> list[Row]:
    """The rows for the chosen candidates and precisions.

    Raises:
        DeblurExportError: there is no row, or none in one of the precisions.
    """
    rows = [
        row
        for precision in precisions
        for number, subject in enumerate(subjects)
        for kind in kinds
        if precision in kind.precisions and _has(subject, kind)
        for row in _rows(subject, kind, precision, f"{subject.title} " if number else "")
    ]
    for precision in precisions:
        if not any(row.precision == precision for row in rows):
            raise DeblurExportError(
                f"none of these candidates computes in {precision} here; ONNX Runtime runs the "
                "graph as it is, native kernels need custom ops and float32"
            )
    return rows


def _has(subject: Subject, kind: Kind) -> bool:
    """Whether there is this candidate: the original of adopted files has no PyTorch network, and
    is itself what a plain export is of another."""
    if isinstance(subject.network, Original):
        return kind.optimized or kind.name == BASELINE
    return not kind.native or kind.compiled or subject.native


def _rows(subject: Subject, kind: Kind, precision: GraphPrecision, prefix: str) -> Iterator[Row]:
    label = prefix + kind.name
    if not kind.optimized:
        yield Row(label, subject, kind, precision)
    elif subject.files:
        for file in subject.files:
            yield Row(f"{label} {file.name}", subject, kind, precision, file=file)
    else:
        for target in EXPORTED[kind.engine]:
            yield Row(f"{label} {target}", subject, kind, precision, target=target)
