"""What int8 costs on pairs that neither calibrated nor searched.

    python bench/quantization.py --pool POOL [--json FILE] [--method mse ...] [--pairs N]

Every network with demo weights: exported, calibrated on the train part of the pool, searched on
val under 0.1 dB, for both layouts; then PSNR of float32 and int8 against the sharp images of the
test part, on ONNX Runtime. POOL is made by bench/pairs.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from deblur_export.calibration.limits import METHODS, Method
from deblur_export.calibration.qdq import LAYOUTS, Layout
from deblur_export.errors import DeblurExportError
from deblur_export.export.bench.machine import machine, physical_cores
from deblur_export.export.checkpoint import DEMO_FOLDER, load_model
from deblur_export.export.manifest import Artifact
from deblur_export.export.pipeline import ExportOptions, export_onnx
from deblur_export.export.quantization.calibrate import Calibration, calibrate
from deblur_export.export.quantization.data import open_pool, pool_pairs
from deblur_export.export.quantization.scoring import Judge, psnr

BUDGET = 0.1  # dB
HEAD = (
    "| network | layout | method | blocks | int8 share | drop on val | drop on test | to float32 |"
)
Row = dict[str, Any]


def measure(
    artifact: Artifact, judge: Judge, pool: Path, layout: Layout, method: Method, folder: Path
) -> Row:
    """Calibrate one file one way and judge it on the test part."""
    options = Calibration(None, pool, method, layout, max_drop=BUDGET)
    path = folder / f"{artifact.path.stem}_{layout}_{method}.onnx"
    result = calibrate(artifact, options, path)
    test = judge.score(onnx.load(path))
    return {
        "layout": layout,
        "method": method,
        "blocks": f"{len(result.chosen.blocks)} of {len(result.blocks)}",
        "share": result.artifact.manifest["precision_map"]["multiply_adds"]["conv"],
        "val": result.chosen.score.drop,
        "test": test.drop,
        "to_float32": psnr(test.error),
        "megabytes": path.stat().st_size / 1e6,
    }


def text(title: str, row: Row) -> str:
    """A line of the table."""
    return (
        f"| {title} | {row['layout']} | {row['method']} | {row['blocks']} | {row['share']:.1%} | "
        f"{row['val']:+.3f} dB | {row['test']:+.3f} dB | {row['to_float32']:.1f} dB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--method", action="append", choices=METHODS, help="[all]")
    parser.add_argument("--pairs", type=int, default=60, help="of the test part [60]")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True, markup=False)
    about = machine(physical_cores())
    for key, value in about.items():
        console.print(f"{key}: {value}")
    lines, results = [], dict[str, list[Row]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in sorted(DEMO_FOLDER.glob("*.safetensors")):
            loaded = load_model(*file.stem.split("_"), "demo")
            artifact = export_onnx(loaded, ExportOptions(), folder / f"{file.stem}.onnx")
            pairs = pool_pairs(open_pool(arguments.pool, "test", artifact), arguments.pairs)
            judge = Judge(onnx.load(artifact.path), pairs.blurred, pairs.sharp)
            for layout in LAYOUTS:
                for method in arguments.method or METHODS:
                    try:
                        row = measure(artifact, judge, arguments.pool, layout, method, folder)
                    except DeblurExportError as error:
                        console.print(f"{loaded.title} {layout} {method}: {error}")
                        continue
                    results.setdefault(loaded.title, []).append(row)
                    lines.append(text(loaded.title, row))
                    console.print(lines[-1])
    console.print(f"\n{arguments.pairs} pairs of test; budget {BUDGET:g} dB on val\n")
    console.print("\n".join((HEAD, "|---" * (HEAD.count("|") - 1) + "|", *lines)))
    if arguments.json:
        document = {"machine": about, "pairs": arguments.pairs, "results": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
