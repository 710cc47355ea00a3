"""Measure what fp16, bf16 and int8 lose on held-out pairs, against the ground truth.

    python bench/quantization.py --dataset DATASET [--json FILE] [--network NAME ...]
        [--method NAME ...]

Every network with demo weights is exported in float32, fp16 and bf16, and calibrated to int8 for
both layouts: on the split train of the dataset, with a budget of 0.1 dB on the split val. PSNR is
then measured against the sharp images of the split test on ONNX Runtime, which rounds where a typed
file does. `deblur-export pairs` makes DATASET. Networks that are not named keep their rows of the
JSON file, which is written after each network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from deblur_export.artifact import Artifact
from deblur_export.calibration.calibrate import Calibration, calibrate
from deblur_export.calibration.calibrators import METHODS, Method
from deblur_export.calibration.images import dataset_pairs, open_dataset
from deblur_export.calibration.qdq import LAYOUTS, Layout
from deblur_export.calibration.scoring import Evaluator, psnr
from deblur_export.errors import DeblurExportError
from deblur_export.export.pipeline import ExportOptions, export_onnx
from deblur_export.export.precision.typed import typed_artifact
from deblur_export.export.runtimes.emulated_session import emulated
from deblur_export.export.timing.machine import machine, physical_cores
from deblur_export.models.checkpoint import DEMO_FOLDER, load_model
from deblur_export.precision import GRAPH_PRECISIONS, GraphPrecision
from deblur_export.temporary import temporary_folder

GOALS = {"fp16": 0.01, "bf16": 0.05, "int8": 0.1}  # largest loss of PSNR in dB
MIN_INT8 = 0.7  # smallest fraction of the convolutions' multiply-adds
HEAD = "| network | precision | fraction | loss on test | goal | to float32 | loss on val | size |"
Row = dict[str, Any]


def typed_row(
    artifact: Artifact, evaluator: Evaluator, precision: GraphPrecision, folder: Path
) -> Row:
    """Measure a file in fp16 or bf16."""
    file = typed_artifact(artifact, precision, folder / f"{artifact.path.stem}_{precision}.onnx")
    return measured_row(file, evaluator) | {"precision": precision}


def int8_row(
    artifact: Artifact,
    evaluator: Evaluator,
    dataset: Path,
    layout: Layout,
    method: Method,
    folder: Path,
) -> Row:
    """Calibrate and measure a file with one layout and method."""
    options = Calibration(None, dataset, method, layout, max_drop=GOALS["int8"])
    path = folder / f"{artifact.path.stem}_{layout}_{method}.onnx"
    result = calibrate(artifact, options, path)
    return measured_row(result.artifact, evaluator) | {
        "precision": "int8",
        "layout": layout,
        "method": method,
        "blocks": f"{len(result.chosen.blocks)} of {len(result.blocks)}",
        "val": result.chosen.score.drop,
    }


def measured_row(artifact: Artifact, evaluator: Evaluator) -> Row:
    score = evaluator.score(emulated(artifact.proto))
    return {
        "fraction": artifact.manifest.precision_map.multiply_adds.conv,
        "test": score.drop,
        "to_float32": psnr(score.error),
        "megabytes": artifact.path.stat().st_size / 1e6,
    }


def text(title: str, row: Mapping[str, Any]) -> str:
    """A row of the table."""
    precision, goal = row["precision"], GOALS[row["precision"]]
    reached = row["test"] <= goal and (precision != "int8" or row["fraction"] >= MIN_INT8)
    verdict = f"{goal:g} dB" if reached else f"{goal:g} dB **not reached**"
    how = f", {row['layout']}, {row['method']}, {row['blocks']} blocks" if "layout" in row else ""
    val = f"{row['val']:+.4f} dB" if "val" in row else ""
    return (
        f"| {title} | {precision}{how} | {row['fraction']:.1%} | {row['test']:+.4f} dB | "
        f"{verdict} | {row['to_float32']:.1f} dB | {val} | {row['megabytes']:.1f} MB |"
    )


def table(results: Mapping[str, list[Row]]) -> str:
    """All rows as a Markdown table."""
    lines = [text(title, row) for title, rows in results.items() for row in rows]
    return "\n".join((HEAD, "|---" * (HEAD.count("|") - 1) + "|", *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--network", action="append", help="[all with demo weights]")
    parser.add_argument("--method", action="append", choices=METHODS, help="[mse]")
    parser.add_argument("--pairs", type=int, default=40, help="number of test pairs [40]")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True, markup=False)
    about = machine(physical_cores())
    for key, value in about.items():
        console.print(f"{key}: {value}")
    results = dict[str, list[Row]]()
    if arguments.json and arguments.json.exists():
        results = json.loads(arguments.json.read_text(encoding="utf-8"))["results"]
    for file in sorted(DEMO_FOLDER.glob("*.safetensors")):
        name, variant = file.stem.split("_")
        if name not in (arguments.network or [name]):
            continue
        loaded = load_model(name, variant, "demo")
        rows = results[loaded.title] = []
        with temporary_folder() as folder:
            artifact = export_onnx(loaded, ExportOptions(), folder / f"{file.stem}.onnx")
            pairs = dataset_pairs(
                open_dataset(arguments.dataset, "test", artifact), arguments.pairs
            )
            evaluator = Evaluator(artifact.proto, pairs.blurred, pairs.sharp)
            rows += [
                typed_row(artifact, evaluator, precision, folder)
                for precision in GRAPH_PRECISIONS[1:]
            ]
            for layout in LAYOUTS:
                for method in arguments.method or METHODS[-1:]:
                    try:
                        row = int8_row(
                            artifact, evaluator, arguments.dataset, layout, method, folder
                        )
                    except DeblurExportError as error:
                        console.print(f"{loaded.title} {layout} {method}: {error}")
                        continue
                    rows.append(row)
        for row in rows:
            console.print(text(loaded.title, row))
        if arguments.json:
            ordered = {title: results[title] for title in sorted(results)}
            document = {"machine": about, "pairs": arguments.pairs, "results": ordered}
            arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"\n{arguments.pairs} pairs of test\n\n{table(results)}")


if __name__ == "__main__":
    main()
