"""Make the files of a run, each once: plain exports, optimized exports, and copies with a forced
mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from deblur_export.errors import DeblurExportError
from deblur_export.export.timing.candidates import EXPORTED, Row
from deblur_export.export.timing.coverage import force_choice
from deblur_export.export.timing.process import WorkerProcess
from deblur_export.export.timing.subjects import Size, Subject

EXPORT_SECONDS = 600  # limit: the exporter unrolls loops over pixels, which may take forever


class Files:
    """The files of a run.

    Args:
        folder: where they are written.
        threads: number of threads of the exporter.
        forced: whether mask decisions become inputs.
        progress: called with a line of text for each export.
    """

    def __init__(
        self, folder: Path, threads: int, forced: bool, progress: Callable[[str], None]
    ) -> None:
        self.folder, self.threads, self.forced = folder, threads, forced
        self.progress = progress
        self.made: dict[object, Path | DeblurExportError] = {}

    def of(self, row: Row, size: Size) -> Path | None:
        """The file that a row runs; None for PyTorch.

        Raises:
            DeblurExportError: the file cannot be made.
        """
        if row.kind.plain:
            key = (row.subject.network, size)
            return self._once(key, lambda path: self._plain(row.subject, size, path))
        if not row.kind.optimized:
            return None
        file = row.file or self._optimized(row)
        decision = row.subject.decision
        if not self.forced or decision is None:
            return file
        return self._once(file, lambda path: force_choice(file, decision, path))

    def _once(self, key: object, make: Callable[[Path], None]) -> Path:
        """Make a file if it was not made before, or raise the same error again."""
        if key not in self.made:
            path = self.folder / f"{len(self.made)}.onnx"
            try:
                make(path)
                self.made[key] = path
            except DeblurExportError as error:
                self.made[key] = error
        made = self.made[key]
        if isinstance(made, DeblurExportError):
            raise made
        return made

    def _plain(self, subject: Subject, size: Size, path: Path) -> None:
        self.progress(f"torch.onnx.export of {subject.title} at {size[0]}x{size[1]}")
        with WorkerProcess(self.threads, self.folder) as worker:
            try:
                worker.ask(
                    "plain",
                    EXPORT_SECONDS,
                    network=asdict(subject.network),
                    size=size,
                    decision=subject.decision if self.forced else None,
                    path=str(path),
                )
            except DeblurExportError as error:
                reason = str(error).removeprefix("cannot be exported: ")
                raise DeblurExportError(f"cannot be exported: {reason}") from error

    def _optimized(self, row: Row) -> Path:
        """Export all targets of a network at once, because tracing takes most of the time."""
        network, wanted = row.subject.network, row.target
        paths = {
            target: self.folder / f"{row.subject.title.replace(':', '_')}_{target}.onnx"
            for targets in EXPORTED.values()
            for target in targets
        }

        def make(path: Path) -> None:
            self.progress(f"exporting {row.subject.title}")
            with WorkerProcess(self.threads, self.folder) as worker:
                named = {target: str(p) for target, p in paths.items()}
                worker.ask("optimized", network=asdict(network), paths=named)

        self._once(("optimized", network), make)
        assert wanted is not None
        return paths[wanted]
