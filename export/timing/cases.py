"""Measures all candidates in every case; a case is an image size and a coverage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import random_cases
from deblur_export.export.runtimes.registry import DEFAULT
from deblur_export.export.timing.candidates import BASELINE, CANDIDATES, REFERENCE, Row
from deblur_export.export.timing.coverage import blob_mask, dilated_coverage
from deblur_export.export.timing.files import Files
from deblur_export.export.timing.jobs import FORCED_CHOICE, Job, Original
from deblur_export.export.timing.process import WorkerProcess
from deblur_export.export.timing.rounds import Budget, Feed, Figures, max_difference, run_rounds
from deblur_export.export.timing.subjects import Size, Subject


@dataclass(frozen=True)
class Case:
    """Figures of every row on one image. `coverage` and `dilated`, that of the mask after a 3x3
    dilation, are fractions in 0..1; None if the networks compute their own mask."""

    size: Size
    coverage: float | None
    dilated: float | None
    figures: dict[Row, Figures]


@dataclass(frozen=True)
class Settings:
    """What is measured; coverages are fractions in 0..1."""

    rows: Sequence[Row]
    sizes: Sequence[Size]
    coverages: Sequence[float]
    threads: int
    budget: Budget
    profile: bool


class Bench:
    """A measurement. Workers live for one size and exchange files in `folder`."""

    def __init__(self, settings: Settings, folder: Path, progress: Callable[[str], None]) -> None:
        self.settings, self.folder, self.progress = settings, folder, progress
        self.saved = 0
        self.prefix = ""  # of progress messages
        self.files = Files(folder, settings.threads, bool(settings.coverages), progress)

    def cases(self) -> Iterator[Case]:
        """The cases, each as soon as it is measured."""
        for size in self.settings.sizes:
            jobs, loaded = {}, {}
            for row in self.settings.rows:
                try:
                    jobs[row] = self._job(row, size)
                    loaded[row] = Figures()
                except DeblurExportError as error:
                    loaded[row] = Figures(reason=str(error))
            yield from self._size(size, jobs, loaded)

    def _size(self, size: Size, jobs: dict[Row, Job], loaded: dict[Row, Figures]) -> Iterator[Case]:
        measured = []
        with ExitStack() as stack:
            workers = {}
            for row, job in jobs.items():
                self.progress(f"loading {row.label} {row.precision}")
                workers[row] = stack.enter_context(self._worker())
                self._load(workers[row], job, loaded[row])
            for coverage in self.settings.coverages or (None,):
                self.prefix = f"{size[0]}x{size[1]}" + _percent(coverage)
                feeds, dilated = self._feeds(size, coverage)
                figures = {
                    row: replace(figure, runs=[], profile={}) for row, figure in loaded.items()
                }
                self._first_runs(workers, feeds, figures)
                by_row = {row: feeds[row.subject] for row in workers}
                run_rounds(
                    workers,
                    by_row,
                    figures,
                    self.settings.budget,
                    lambda step: self.progress(f"{self.prefix}: {step}"),
                )
                for row, figure in figures.items():
                    if workers.get(row) and workers[row].process.poll() is not None:
                        loaded[row].reason = figure.reason  # its worker has ended
                measured.append((Case(size, coverage, dilated, figures), feeds))
        for case, feeds in measured:
            if self.settings.profile:
                self._profile(case, jobs, feeds)
            yield case

    def _worker(self) -> WorkerProcess:
        return WorkerProcess(self.settings.threads, self.folder)

    def _job(self, row: Row, size: Size) -> Job:
        kind, subject = row.kind, row.subject
        if isinstance(subject.network, Original) and not kind.optimized:
            return Job(DEFAULT, "fp32", self.settings.threads, adopted=subject.network.adopted)
        file = self.files.of(row, size)
        network = subject.network
        return Job(
            engine=kind.engine,
            precision=row.precision,
            threads=self.settings.threads,
            file=None if file is None else str(file),
            network=None if isinstance(network, Original) or file is not None else network,
            native=kind.native and subject.native,
            compiled=kind.compiled,
            decision=subject.decision if self.settings.coverages else None,
        )

    def _load(self, worker: WorkerProcess, job: Job, figures: Figures) -> None:
        try:
            reply = worker.ask("load", job=asdict(job))
        except DeblurExportError as error:
            figures.reason = str(error)
            return
        figures.load_seconds = reply["seconds"]
        figures.title, figures.notes = reply["title"], tuple(reply["notes"])
        if job.file is not None:
            figures.file_bytes = Path(job.file).stat().st_size

    def _feeds(
        self, size: Size, coverage: float | None
    ) -> tuple[dict[Subject, Feed], float | None]:
        """The inputs of each network as files, and the dilated coverage."""
        images = {
            channels: self._saved(f"image-{channels}", random_cases((1, channels, *size))[0].image)
            for channels in {row.subject.channels for row in self.settings.rows}
        }
        feeds: dict[Subject, Feed] = {}
        dilated = None
        for subject in dict.fromkeys(row.subject for row in self.settings.rows):
            image = images[subject.channels]
            feeds[subject] = {"image": image}
            if coverage is not None and subject.decision is not None:
                mask = blob_mask(*subject.mask_shape(size), coverage)
                dilated = dilated_coverage(mask)
                path = self._saved(f"mask-{subject.title.replace(':', '-')}", mask)
                feeds[subject] = {"image": image, FORCED_CHOICE: path}
        return feeds, dilated

    def _saved(self, name: str, array: np.ndarray[Any, Any]) -> str:
        # Workers keep the arrays that they have read by their paths.
        self.saved += 1
        path = self.folder / f"{self.saved}-{name}.npy"
        np.save(path, array)
        return str(path)

    def _first_runs(
        self,
        workers: dict[Row, WorkerProcess],
        feeds: dict[Subject, Feed],
        figures: dict[Row, Figures],
    ) -> None:
        """Run each candidate once, alone, and compare its output with PyTorch in float32."""
        outputs = {}
        for number, (row, worker) in enumerate(workers.items()):
            figure = figures[row]
            if figure.reason:
                continue
            self.progress(f"{self.prefix}: first run of {row.label} {row.precision}")
            path = self.folder / f"output-{number}.npy"
            try:
                reply = worker.ask("first", feed=feeds[row.subject], save=str(path))
            except DeblurExportError as error:
                figure.reason = str(error)
                continue
            figure.first_run, figure.memory = reply["seconds"], reply["memory"]
            figure.peak_bytes = reply["peak_bytes"]
            outputs[row] = np.load(path)
        for subject, feed in feeds.items():
            mine = {row: output for row, output in outputs.items() if row.subject == subject}
            if mine:
                reference = self._reference(subject, feed, mine)
                for row, output in mine.items():
                    if reference is not None:
                        figures[row].max_difference = max_difference(output, reference)

    def _reference(
        self, subject: Subject, feed: Feed, outputs: dict[Row, np.ndarray[Any, Any]]
    ) -> np.ndarray[Any, Any] | None:
        """PyTorch's output in float32, or that of the original of adopted files, from a worker of
        its own if that is not a candidate."""
        name = BASELINE if isinstance(subject.network, Original) else REFERENCE
        row = Row(name, subject, CANDIDATES[name], "fp32")
        for other, output in outputs.items():
            if (other.kind, other.precision) == (row.kind, row.precision):
                return output
        self.progress(f"{self.prefix}: reference")
        path = self.folder / "reference.npy"
        with self._worker() as worker:
            try:
                worker.ask("load", job=asdict(self._job(row, (0, 0))))
                worker.ask("first", feed=feed, save=str(path))
            except DeblurExportError:
                return None  # for lack of memory; the table says that the others are not checked
        return np.load(path)  # type: ignore[no-any-return]

    def _profile(self, case: Case, jobs: dict[Row, Job], feeds: dict[Subject, Feed]) -> None:
        for row, figure in case.figures.items():
            if not row.kind.optimized or figure.reason:
                continue
            self.progress(f"{self.prefix}: profile of {row.label} {row.precision}")
            with self._worker() as worker:
                try:
                    reply = worker.ask("profile", job=asdict(jobs[row]), feed=feeds[row.subject])
                except DeblurExportError:
                    continue
            figure.profile = reply["seconds"]


def _percent(coverage: float | None) -> str:
    return "" if coverage is None else f", {100 * coverage:g} % forced"
