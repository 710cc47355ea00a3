"""Take a small variant of every architecture that spandrel knows through the whole line.

    python bench/architectures.py [ARCHITECTURE ...] [--columns fp32,fp16] [--seconds 240]

Needs spandrel, and spandrel_extra_arches for its ten. Every network gets a process of its own with
a time limit, and every result a line of bench/architectures.jsonl, from which bench/tables.py makes
the table of docs/networks.md. Results that are there are kept; `--again` measures them anew, and
`--failed` those that failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import re
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from spandrel_variants import EXTRA, VARIANTS, network

from deblur_export.api.export import calibrate
from deblur_export.api.loading import load_model
from deblur_export.api.parity import verify
from deblur_export.artifact import Artifact
from deblur_export.errors import DeblurExportError
from deblur_export.export.pipeline import ExportOptions, TracedModel, trace_model, write_onnx
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.temporary import temporary_folder

RESULTS = Path(__file__).with_suffix(".jsonl")
COLUMNS = ("free", "tiles", "fp32", "fp16", "bf16", "int8", "openvino", "rtx")
LONGEST = 240  # characters of a reason


class Line:
    """One network on its way; it is loaded and captured once, also if that fails."""

    def __init__(self, architecture: str, folder: Path) -> None:
        self.architecture, self.folder = architecture, folder

    @cached_property
    def loading(self) -> LoadedModel | Exception:
        checkpoint = self.folder / f"{self.architecture}.pth"
        torch.save({"params": network(self.architecture).state_dict()}, checkpoint)
        try:
            return load_model(weights=checkpoint)
        except Exception as error:  # told in each column
            return error

    @cached_property
    def capture(self) -> TracedModel | Exception:
        try:
            return trace_model(self.loaded(), ExportOptions())
        except Exception as error:  # told in each column
            return error

    def loaded(self) -> LoadedModel:
        return succeeded(self.loading)

    def traced(self) -> TracedModel:
        return succeeded(self.capture)

    def file(self, name: str, **options: Any) -> Artifact:
        """The file for a target or precision."""
        wanted = replace(ExportOptions(), **options)
        path = self.folder / f"{name}.onnx"
        return write_onnx(self.loaded(), wanted, self.traced(), path)

    def verified(self, artifact: Artifact, **how: Any) -> str:
        """What `verify` measured.

        Raises:
            DeblurExportError: it did not pass.
        """
        report = verify(artifact, **how)
        failed = [case for case in report.cases if not case.passed]
        if failed:
            raise DeblurExportError(f"verify: {failed[0].reason}")
        if not report.passed:
            raise DeblurExportError(f"verify: {report.verdict}")
        psnr = min(case.psnr for case in report.cases)
        worst = max(case.max_abs for case in report.cases)
        return f"{worst:.0e}" if artifact.manifest.precision == "fp32" else f"{psnr:.0f} dB"

    def free(self) -> str:
        names = [
            str(size)
            for size in self.traced().graph.graph.inputs[0].shape or ()
            if not isinstance(size, int)
        ]
        return ", ".join(names) or "x".join(
            map(str, self.traced().graph.graph.inputs[0].shape or ())
        )

    def tiles(self) -> str:
        images = self.loaded().images
        field = "the whole image" if images.field is None else f"{images.field}"
        return f"{field}, {images.tile_period}"

    def fp32(self) -> str:
        return self.verified(self.file("fp32"))

    def fp16(self) -> str:
        return self.verified(self.file("fp16", precision="fp16"))

    def bf16(self) -> str:
        return self.verified(self.file("bf16", precision="bf16"))

    def int8(self) -> str:
        images = self.folder / "images"
        images.mkdir(exist_ok=True)
        channels = self.loaded().images.channels
        for number in range(2):
            noise = np.random.default_rng(number).integers(0, 255, (4, 4, channels), np.uint8)
            photo = Image.fromarray(noise.squeeze()).resize((96, 96), Image.Resampling.BICUBIC)
            photo.save(images / f"{number}.png")
        target = self.folder / "int8.onnx"
        made = calibrate(
            self.file("fp32"), target, images=images, count=4, crop=64, max_psnr_drop=60
        )
        share = made.artifact.manifest.precision_map
        assert share is not None
        text = self.verified(made.artifact)
        return f"{text}, {share.multiply_adds.conv_and_matmul:.0%}"

    def openvino(self) -> str:
        return self.verified(self.file("openvino", target="openvino"), runtime="openvino")

    def rtx(self) -> str:
        import tensorrt_rtx

        from deblur_export.export.engines import nvinfer
        from deblur_export.export.runtimes import nvinfer_log

        artifact = self.file("rtx", target="rtx", precision="fp16")
        log = nvinfer_log.message_log(tensorrt_rtx)
        parsed = nvinfer.parse(tensorrt_rtx, artifact.content, log, "it")
        return f"{parsed.network.num_layers} layers"


T = TypeVar("T")


def succeeded(result: T | Exception) -> T:
    if isinstance(result, Exception):
        raise result
    return result


def measure(architecture: str, columns: Sequence[str], results: Path) -> None:
    """Write a line for each column as soon as it is known; runs in a process of its own."""
    torch.set_num_threads(1)
    with temporary_folder() as folder:
        line = Line(architecture, folder)
        for column in columns:
            start = time.perf_counter()
            step: Callable[[], str] = getattr(line, column)
            try:
                passed, text = True, step()
            except Exception as error:  # what fails is what the table is about
                passed, text = False, reason(error)
            write(results, architecture, column, passed, text, time.perf_counter() - start)


def reason(error: Exception) -> str:
    """Why something failed, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    own = isinstance(error, DeblurExportError)
    text = text if own else f"{type(error).__name__}: {text}"
    text = re.sub(r"/\S+/(?=[^/\s]+\.(py|pth)\b)", "", text)  # folders of this machine
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def write(
    results: Path, architecture: str, column: str, passed: bool, text: str, seconds: float
) -> None:
    row = {"architecture": architecture, "column": column, "passed": passed, "text": text}
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "seconds": round(seconds)}) + "\n")
    print(f"{architecture:14} {column:9} {'ok' if passed else 'no':3} {text} ({seconds:.0f} s)")


def read(results: Path) -> dict[str, dict[str, tuple[bool, str]]]:
    """The last result for each column of each architecture."""
    found: dict[str, dict[str, tuple[bool, str]]] = {}
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    for row in map(json.loads, lines):
        found.setdefault(row["architecture"], {})[row["column"]] = (row["passed"], row["text"])
    return found


def run(architecture: str, columns: Sequence[str], seconds: float, results: Path) -> None:
    """Measure in a process, which is stopped after `seconds`."""
    process = multiprocessing.get_context("fork").Process(
        target=measure, args=(architecture, columns, results)
    )
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    if process.exitcode:
        missing = [
            column for column in columns if column not in read(results).get(architecture, {})
        ]
        why = f"longer than {seconds:.0f} s" if late else f"ended with {process.exitcode}"
        for column in missing:
            write(results, architecture, column, False, why, seconds)


def table(found: Mapping[str, Mapping[str, tuple[bool, str]]]) -> str:
    """The table of docs/networks.md, and below it why what fails does."""
    rows = [f"| | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    failures: dict[str, list[str]] = {}
    for architecture in sorted(found, key=str.lower):
        cells = found[architecture]
        rows.append(
            f"| {architecture}{' (+)' if architecture in EXTRA else ''} | "
            f"{' | '.join(cell(cells.get(column)) for column in COLUMNS)} |"
        )
        for column, why in first_failures(cells):
            failures.setdefault(why, []).append(f"{architecture} ({column})")
    both = sum(
        all(cells.get(column, (False, ""))[0] for column in ("fp32", "fp16"))
        for cells in found.values()
    )
    text = f"{both} of {len(VARIANTS)} architectures pass `verify` in float32 and in FP16."
    listed = "\n".join(f"- {', '.join(names)}: {why}" for why, names in sorted(failures.items()))
    missing = [name for name in VARIANTS if name not in found]
    if missing:
        text += f" Not measured: {', '.join(sorted(missing, key=str.lower))}."
    text = textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
    return f"{text}\n\n" + "\n".join(rows) + f"\n\nWhy not:\n\n{listed}"


def first_failures(cells: Mapping[str, tuple[bool, str]]) -> Iterator[tuple[str, str]]:
    """The columns that failed, each reason once."""
    told: set[str] = set()
    for column in COLUMNS:
        passed, text = cells.get(column, (True, ""))
        if not passed and text not in told:
            told.add(text)
            yield column, text


def cell(result: tuple[bool, str] | None) -> str:
    if result is None:
        return ""
    passed, text = result
    return text if passed else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture", nargs="*", help="[all]")
    parser.add_argument("--columns", default=",".join(COLUMNS), help="separated by commas")
    parser.add_argument("--seconds", type=float, default=240, help="for each architecture")
    parser.add_argument("--again", action="store_true", help="measure what is there too")
    parser.add_argument("--failed", action="store_true", help="measure what failed again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    wanted = arguments.columns.split(",")
    for architecture in arguments.architecture or VARIANTS:
        there = {} if arguments.again else read(arguments.results).get(architecture, {})
        columns = [
            column
            for column in wanted
            if column not in there or (arguments.failed and not there[column][0])
        ]
        if columns:
            run(architecture, columns, arguments.seconds, arguments.results)


if __name__ == "__main__":
    main()
