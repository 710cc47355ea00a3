"""What each precision costs in quality and size, network by network and runtime by runtime.

    python bench/precision.py --dataset DATASET [--json FILE] [--network NAME ...]
        [--precision P ...]

Every tiny network (demo weights where there are some, else random ones) as fp32, fp16, bf16 and
int8: PSNR against PyTorch in float32, the lowest over several sizes, on ONNX Runtime (rounding
where the typed file does), on OpenVINO (of the float32 file, with the precision as a hint), and,
where TensorRT for RTX is installed, whether its builder makes an engine and proves the precision.

int8 is everything that may be int8, without a budget, calibrated on some images of DATASET,
which deblur-export pairs makes, and evaluated on others: layout `cpu` for OpenVINO, `tensorrt` for
the rest. bench/quantization.py measures int8 within a budget. Networks and precisions that are not
named keep their rows of the JSON file.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from deblur_export import models
from deblur_export.artifact import Artifact
from deblur_export.calibration.calibrate import Calibration, calibrate
from deblur_export.commands.progress import PhaseBars
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import options as sizes
from deblur_export.export.engines.build import build_engine
from deblur_export.export.engines.builders import choose
from deblur_export.export.images.cases import Case, random_cases
from deblur_export.export.parity.verify import reference_model, verify
from deblur_export.export.pipeline import ExportOptions, TracedModel, trace_model, write_onnx
from deblur_export.export.timing.machine import machine, physical_cores
from deblur_export.models.checkpoint import LoadedModel, default_weights, load_model
from deblur_export.models.training.data.dataset import Dataset
from deblur_export.precision import PRECISIONS
from deblur_export.temporary import temporary_folder

IMAGES, PAIRS, NO_BUDGET = 8, 2, 99.0
RUNTIMES = ("ONNX Runtime", "OpenVINO", "TensorRT for RTX")
Cell = dict[str, Any]


def attempt(work: Callable[[], Cell]) -> Cell:
    """The cell, or the reason why there is none."""
    try:
        return work()
    except DeblurExportError as error:
        return {"reason": str(error)}


def measured(artifact: Artifact, cases: Sequence[Case] | None = None, **how: Any) -> Cell:
    cases = cases or random_cases(artifact.manifest.input.shape)
    report = verify(artifact, reference_model(artifact), cases, **how)
    return {
        "psnr": min(case.psnr for case in report.cases),
        "max_abs": max(case.max_abs for case in report.cases),
        "passed": report.passed,
        "runtime": report.candidate,
        "megabytes": artifact.path.stat().st_size / 1e6,
    }


def engine(artifact: Artifact, precision: Any, console: Console) -> Cell:
    options = sizes.BuildOptions(
        sizes=sizes.parse_sizes("64x64", "256x256", "256x256", None), precision=precision
    )
    choice = choose("rtx", options)
    with PhaseBars(console) as bars:
        outcome = build_engine(artifact, options, choice, artifact.path.with_suffix(".e"), bars)
    path = artifact.path.with_suffix(".e")
    return {"megabytes": path.stat().st_size / 1e6, "precision check": list(outcome.lines)}


class Files:
    """The files of one network, from one trace."""

    def __init__(self, loaded: LoadedModel, folder: Path, dataset: Path | None) -> None:
        self.loaded, self.folder, self.dataset = loaded, folder, dataset
        self.traced: TracedModel = trace_model(loaded, ExportOptions())

    def typed(self, target: Any, precision: Any) -> Artifact:
        options = ExportOptions(target=target, precision=precision)
        path = self.folder / f"{self.loaded.spec.name}_{target}_{precision}.onnx"
        return write_onnx(self.loaded, options, self.traced, path)

    def int8(self, target: Any, layout: Any) -> Artifact:
        """Raises DeblurExportError without a dataset."""
        source = self.typed(target, "fp32")
        path = source.path.with_name(f"{source.path.stem}_int8.onnx")
        options = Calibration(
            images=None,
            dataset=self.dataset,
            layout=layout,
            count=IMAGES,
            pairs=PAIRS,
            max_drop=NO_BUDGET,
            cache=self.folder,
        )
        return calibrate(source, options, path).artifact

    def photos(self) -> list[Case]:
        """Blurred images that did not calibrate; noise would leave the ranges found on photos."""
        assert self.dataset is not None
        images = Dataset(self.dataset, "test").blurred[:PAIRS].astype(np.float32) / 255
        planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return [Case(f"pair {n}", plane[None]) for n, plane in enumerate(planes)]


def measure(
    files: Files, precisions: Sequence[str], console: Console
) -> dict[str, dict[str, Cell]]:
    """Precision -> runtime -> cell."""
    rows: dict[str, dict[str, Cell]] = {}
    for precision in precisions:
        works: dict[str, Callable[[], Cell]]
        if precision == "int8":
            works = {
                "ONNX Runtime": lambda: measured(
                    files.int8("portable", "tensorrt"), files.photos()
                ),
                "OpenVINO": lambda: measured(
                    files.int8("openvino", "cpu"), files.photos(), runtime="openvino"
                ),
                "TensorRT for RTX": lambda: engine(files.int8("rtx", "tensorrt"), "int8", console),
            }
        else:
            works = {
                "ONNX Runtime": lambda p=precision: measured(files.typed("portable", p)),  # type: ignore[misc]
                "OpenVINO": lambda p=precision: measured(  # type: ignore[misc]
                    files.typed("openvino", "fp32"), runtime="openvino", precision=p
                ),
                "TensorRT for RTX": lambda p=precision: engine(files.typed("rtx", p), p, console),  # type: ignore[misc]
            }
        rows[precision] = {}
        for runtime, work in works.items():
            cell = rows[precision][runtime] = attempt(work)
            console.print(f"{files.loaded.title} {precision} {runtime}: {text(runtime, cell)}")
    return rows


def text(runtime: str, cell: Cell) -> str:
    """A cell of the table."""
    if "reason" in cell:
        reason = re.sub(r"\S*/", "", cell["reason"])
        return f"no: {reason}" if len(reason) <= 100 else f"no: {reason[:100]}..."
    size = f"{cell['megabytes']:.1f} MB"
    if runtime == "TensorRT for RTX":
        return f"built, {size}"
    verdict = "" if cell["passed"] else " **fails verify**"
    return f"{cell['psnr']:.0f} dB, {size}{verdict}"


def matrix(results: dict[str, dict[str, dict[str, Cell]]]) -> str:
    """All cells as a Markdown table."""
    lines = [
        f"| network | precision | {' | '.join(RUNTIMES)} |",
        "|---" * (len(RUNTIMES) + 2) + "|",
    ]
    for title, rows in results.items():
        for precision, row in rows.items():
            cells = " | ".join(text(runtime, row[runtime]) for runtime in RUNTIMES)
            lines.append(f"| {title} | {precision} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, help="calibrate int8 on this; no int8 without")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--network", action="append", choices=models.NAMES, help="[all]")
    parser.add_argument("--precision", action="append", choices=tuple(PRECISIONS), help="[all]")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True, markup=False)
    about = machine(physical_cores())
    for key, value in about.items():
        console.print(f"{key}: {value}")
    results = dict[str, dict[str, dict[str, Cell]]]()
    if arguments.json and arguments.json.exists():
        results = json.loads(arguments.json.read_text(encoding="utf-8"))["results"]
    for name in arguments.network or models.NAMES:
        loaded = load_model(name, "tiny", default_weights(name, "tiny"))
        title = f"{loaded.title} ({loaded.weights})"
        with temporary_folder() as folder:
            files = Files(loaded, folder, arguments.dataset)
            rows = measure(files, arguments.precision or tuple(PRECISIONS), console)
        rows = results.get(title, {}) | rows
        results[title] = {
            precision: rows[precision] for precision in PRECISIONS if precision in rows
        }
        other = f"{loaded.title} ("  # weights that the network had before
        kept = [key for key in results if key == title or not key.startswith(other)]
        results = {key: results[key] for key in sorted(kept)}
        if arguments.json:
            document = {"machine": about, "results": results}
            arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"\n{matrix(results)}")


if __name__ == "__main__":
    main()
