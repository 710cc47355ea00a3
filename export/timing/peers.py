"""Who can take part, and the rows of a run: one a network, peer, file and precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.registry import ENTRIES, backend
from deblur_export.export.timing.jobs import TORCH
from deblur_export.precision import GRAPH_PRECISIONS, PRECISIONS, GraphPrecision
from deblur_export.target import TargetName

if TYPE_CHECKING:
    from deblur_export.export.timing.subjects import Subject

TIMED: tuple[GraphPrecision, ...] = tuple(p for p in GRAPH_PRECISIONS if PRECISIONS[p].timed)
BASELINE = "ort-plain"
REFERENCE = "torch-eager"


@dataclass(frozen=True)
class Kind:
    """A way to run a network: PyTorch or the name of a backend. `ours` takes files of ours,
    `plain` the plain export."""

    name: str
    engine: str
    precisions: tuple[GraphPrecision, ...] = TIMED
    plain: bool = False
    ours: bool = False
    native: bool = False
    compiled: bool = False


def _kinds() -> Iterator[Kind]:
    """PyTorch, custom ops by their definitions, with our native kernels, and compiled; then the
    plain export and our files on every backend that `bench` measures."""
    yield Kind("torch-eager", TORCH)
    yield Kind("torch-native", TORCH, ("fp32",), native=True)
    yield Kind("torch-compile", TORCH, native=True, compiled=True)
    for name, entry in ENTRIES.items():
        if entry.peers:
            plain, ours = entry.peers
            precisions = tuple(p for p in TIMED if p in backend(name).precisions)
            yield Kind(plain, name, precisions, plain=True)
            yield Kind(ours, name, precisions, ours=True)


PEERS: Mapping[str, Kind] = {kind.name: kind for kind in _kinds()}
# Files that --model exports, by the backend that takes them.
EXPORTED: Mapping[str, tuple[TargetName, ...]] = {
    kind.engine: backend(kind.engine).bench_targets for kind in PEERS.values() if kind.ours
}


@dataclass(frozen=True)
class Row:
    """One peer in one precision. `file` is given, or `target` says which export of ours it runs."""

    label: str
    subject: Subject
    kind: Kind
    precision: GraphPrecision
    file: Path | None = None
    target: TargetName | None = None


def chosen_peers(names: Iterable[str]) -> tuple[Kind, ...]:
    """The peers of these names in the order of `PEERS`; all of them for none.

    Raises:
        DeblurExportError: no such peer.
    """
    names = set(names)
    if unknown := sorted(names - set(PEERS)):
        raise DeblurExportError(f"unknown peer '{unknown[0]}'; there are {', '.join(PEERS)}")
    return tuple(kind for name, kind in PEERS.items() if not names or name in names)


def plan(
    subjects: Sequence[Subject], kinds: Iterable[Kind], precisions: Sequence[GraphPrecision]
) -> list[Row]:
    """Every row that the choice of peers and precisions makes.

    Raises:
        DeblurExportError: none, or none in one of the precisions.
    """
    rows = [
        row
        for precision in precisions
        for number, subject in enumerate(subjects)
        for kind in kinds
        if precision in kind.precisions and (not kind.native or kind.compiled or subject.native)
        for row in _rows(subject, kind, precision, f"{subject.title} " if number else "")
    ]
    for precision in precisions:
        if not any(row.precision == precision for row in rows):
            raise DeblurExportError(
                f"none of these peers computes in {precision} here; ONNX Runtime runs the graph as "
                "it is, native kernels need custom ops and float32"
            )
    return rows


def _rows(subject: Subject, kind: Kind, precision: GraphPrecision, prefix: str) -> Iterator[Row]:
    label = prefix + kind.name
    if not kind.ours:
        yield Row(label, subject, kind, precision)
    elif subject.files:
        for file in subject.files:
            yield Row(f"{label} {file.name}", subject, kind, precision, file=file)
    else:
        for target in EXPORTED[kind.engine]:
            yield Row(f"{label} {target}", subject, kind, precision, target=target)
