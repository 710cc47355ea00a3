"""Runs `deblur-export bench`: from its options to tables, JSON and plots."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deblur_export.artifact import read_artifact
from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.choose import choose_runtime
from deblur_export.export.timing import tables
from deblur_export.export.timing.candidates import chosen_candidates, plan
from deblur_export.export.timing.cases import Bench, Case, Settings
from deblur_export.export.timing.machine import machine, physical_cores
from deblur_export.export.timing.plots import check_plot, draw
from deblur_export.export.timing.rounds import Budget
from deblur_export.export.timing.subjects import (
    Size,
    Subject,
    check_coverage,
    from_choice,
    from_files,
)
from deblur_export.models.loading import NetworkChoice
from deblur_export.outputs import check_outputs
from deblur_export.precision import GraphPrecision
from deblur_export.temporary import temporary_folder

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_SIZE = (256, 256)
LARGEST_SIDE = 16384
REFERENCE_WEIGHTS = "random:0"  # only the time of the reference matters
WIDEST = 160  # characters of a table in a log, which has no width


@dataclass(frozen=True)
class Options:
    """The options of the command: `sizes` like "720x1280", `coverages` in percent."""

    files: tuple[Path, ...]
    network: NetworkChoice
    reference: str | None
    sizes: tuple[str, ...]
    coverages: tuple[float, ...]
    candidates: tuple[str, ...]
    precisions: tuple[GraphPrecision, ...]
    threads: int | None
    repeats: int | None
    seconds: float
    profile: bool
    json_path: Path | None
    plot_path: Path | None


def bench(options: Options, console: Console, progress: Callable[[str], None]) -> None:
    """Measure and report. `progress` is called with a line of text for each step.

    Raises:
        DeblurExportError: the options are wrong, which is found before anything is measured; a
            file cannot be written; or no candidate ran.
    """
    settings = _settings(options)
    for note in dict.fromkeys(note for row in settings.rows for note in row.subject.notes):
        console.print(f"note: {note}")
    if not console.is_terminal:
        console.width = max(console.width, WIDEST)
    about = machine(settings.threads)
    console.print("; ".join(f"{key}: {value}" for key, value in about.items() if value))
    cases: list[Case] = []
    progress("starting")
    with temporary_folder() as folder:
        for case in Bench(settings, folder, progress).cases():
            cases.append(case)
            _print_case(case, console)
    for line in [tables.LEGEND, *tables.memory_kinds(cases), *tables.titles(cases)]:
        console.print(line)
    for file in options.files:
        artifact = read_artifact(file)
        console.print(f"{file}: deblur-export run uses {choose_runtime('auto', artifact).reason}")
        for note in artifact.notes:
            console.print(f"note: {note}")
    if options.json_path is not None:
        chosen = {
            "seconds": options.seconds,
            "repeats": options.repeats,
            "threads": settings.threads,
        }
        document = tables.as_json(cases, about, chosen)
        with atomic_path(options.json_path) as temporary:
            temporary.write_text(
                json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8"
            )
        console.print(f"wrote {options.json_path}")
    if options.plot_path is not None:
        draw(cases, options.plot_path)
        console.print(f"wrote {options.plot_path}")
    if not any(figure.runs for case in cases for figure in case.figures.values()):
        raise DeblurExportError("no candidate ran; the reasons are above")


def _settings(options: Options) -> Settings:
    """Check the options; everything that can be wrong is found here."""
    kinds = chosen_candidates(options.candidates)
    sizes = list(dict.fromkeys(map(_size, options.sizes)))
    coverages = sorted({percent / 100 for percent in options.coverages})
    if options.plot_path is not None:
        check_plot(options.plot_path, len(sizes), len(coverages))
    subjects, fixed = _subjects(options)
    weights = None if options.network.weights is None else Path(options.network.weights)
    check_outputs(
        [("the JSON file", options.json_path), ("the plot", options.plot_path)],
        [*(path for file in options.files for path in read_artifact(file).files), weights],
    )
    if fixed and sizes and sizes != fixed:
        height, width = fixed[0]
        only = f"{height}x{width}"
        raise DeblurExportError(f"a file accepts {only} only: use --size {only}")
    if coverages:
        check_coverage(subjects)
    return Settings(
        rows=plan(subjects, kinds, tuple(dict.fromkeys(options.precisions)) or ("fp32",)),
        sizes=sizes or fixed or [DEFAULT_SIZE],
        coverages=coverages,
        threads=options.threads or physical_cores(),
        budget=Budget(options.seconds, options.repeats),
        profile=options.profile,
    )


def _subjects(options: Options) -> tuple[list[Subject], list[Size]]:
    """The networks of the files or of the name, the reference network last."""
    choice = options.network
    fixed: list[Size] = []
    if options.files:
        if replace(choice, name=None, weights=None, ema=None) != NetworkChoice(None):
            raise DeblurExportError(
                "--variant, --local and what describes a network need --model without a FILE, "
                "which contains them"
            )
        subjects, fixed = from_files(options.files, choice.weights, choice.ema, choice.name)
    elif choice.name is None:
        raise DeblurExportError("bench needs FILE.onnx, or a network with --model")
    else:
        subjects = [from_choice(choice)]
    if options.reference is not None:
        name, _, variant = options.reference.partition(":")
        extra = from_choice(NetworkChoice(name, REFERENCE_WEIGHTS, variant or None))
        if extra.title in {subject.title for subject in subjects}:
            raise DeblurExportError(f"--reference {options.reference}: it is measured already")
        subjects.append(extra)
    return subjects, fixed


def _size(text: str) -> Size:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower(), re.ASCII)
    height, width = map(int, found.groups()) if found else (0, 0)
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise DeblurExportError(
            f"--size {text}: not a height and a width of 1 to {LARGEST_SIDE} pixels, as in 720x1280"
        )
    return height, width


def _print_case(case: Case, console: Console) -> None:
    for precision in dict.fromkeys(row.precision for row in case.figures):
        for table in tables.case_tables(case, precision, console):
            console.print(table)
        for line in tables.reasons(tables.of_precision(case, precision)):
            console.print(line)
    for row, figure in case.figures.items():
        if figure.profile:
            console.print(tables.profile_table(case, row))
