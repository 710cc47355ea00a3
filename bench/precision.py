"""What each precision costs in quality and size, network by network and runtime by runtime.

    python bench/precision.py [--json FILE] [--network NAME ...]

Every tiny network (demo weights where there are some, else random ones) as fp32, fp16 and bf16:
PSNR against PyTorch in float32, the lowest over several sizes, on ONNX Runtime (rounding where the
typed file does), on OpenVINO (of the float32 file, with the precision as a hint), and, where
TensorRT for RTX is installed, whether its builder makes an engine and proves the precision.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.export.bench.machine import machine, physical_cores
from deblur_export.export.cases import random_cases
from deblur_export.export.checkpoint import LoadedModel, default_weights, load_model
from deblur_export.export.engines import options as sizes
from deblur_export.export.engines.backend import choose
from deblur_export.export.engines.build import build_engine
from deblur_export.export.engines.phases import PhaseBars
from deblur_export.export.manifest import Artifact
from deblur_export.export.pipeline import ExportOptions, trace_model, write_onnx
from deblur_export.export.verify import reference_model, verify

PRECISIONS = ("fp32", "fp16", "bf16")
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
RUNTIMES = ("ONNX Runtime", "OpenVINO", "TensorRT for RTX")
Cell = dict[str, Any]


def attempt(work: Callable[[], Cell]) -> Cell:
    """The cell, or the reason why there is none."""
    try:
        return work()
    except DeblurExportError as error:
        return {"reason": str(error)}


def judged(artifact: Artifact, **how: Any) -> Cell:
    cases = random_cases(artifact.manifest["input"]["shape"])
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
    return {"megabytes": path.stat().st_size / 1e6, "proof": list(outcome.lines)}


def measure(loaded: LoadedModel, folder: Path, console: Console) -> dict[str, dict[str, Cell]]:
    """Precision -> runtime -> cell."""
    traced = trace_model(loaded, ExportOptions())
    rows: dict[str, dict[str, Cell]] = {}
    for precision in PRECISIONS:

        def file(target: Any, precision: Any = precision) -> Artifact:
            options = ExportOptions(target=target, precision=precision)
            path = folder / f"{loaded.spec.name}_{target}_{precision}.onnx"
            return write_onnx(loaded, replace(options), traced, path)

        hint = HINTS[precision]
        rows[precision] = {
            "ONNX Runtime": attempt(lambda: judged(file("portable"))),
            "OpenVINO": attempt(
                lambda hint=hint: judged(  # type: ignore[misc]
                    file("openvino", "fp32"), runtime="openvino", precision=hint
                )
            ),
            "TensorRT for RTX": attempt(
                lambda precision=precision: engine(file("rtx"), precision, console)  # type: ignore[misc]
            ),
        }
        for runtime, cell in rows[precision].items():
            console.print(f"{loaded.title} {precision} {runtime}: {text(runtime, cell)}")
    return rows


def text(runtime: str, cell: Cell) -> str:
    """A cell of the table."""
    if "reason" in cell:
        reason = re.sub(r"\S*/", "", cell["reason"])
        return f"no: {reason}" if len(reason) <= 150 else f"no: {reason[:150]}..."
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--network", action="append", choices=models.NAMES, help="[all]")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True, markup=False)
    about = machine(physical_cores())
    for key, value in about.items():
        console.print(f"{key}: {value}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.network or models.NAMES:
            loaded = load_model(name, "tiny", default_weights(name, "tiny"))
            rows = measure(loaded, Path(folder), console)
            results[f"{loaded.title} ({loaded.weights})"] = rows
    console.print(f"\n{matrix(results)}")
    if arguments.json:
        document = {"machine": about, "results": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
