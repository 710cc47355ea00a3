"""How long an export takes, and which of its steps takes how much.

    python bench/export_time.py [--network NAME[:VARIANT] ...] [--runs N] [--json FILE]

Each run exports with random weights in a process of its own, in which the libraries are imported
first; wall and processor seconds are medians. Run it on a quiet machine: it prints the load.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

NETWORKS = (
    "nafnet:tiny",
    "nafnet:32",
    "m2aenet:tiny",
    "m2aenet:base",
    "algnet:tiny",
    "algnet:32",
    "aibnet:tiny",
    "saphn:tiny",
    "dhnet:tiny",
    "ufpnet:tiny",
)
RUNS = 3
SHOWN = 0.02  # fraction of the whole that a step needs for a line of its own
OTHERS = "other steps"


def run(network: str) -> dict[str, Any]:
    """Export once; seconds of the whole and of the steps by name."""
    import onnxscript  # noqa: F401
    import torch.onnx._internal.exporter._core  # noqa: F401

    from deblur_export.export.pipeline import ExportOptions, export_onnx
    from deblur_export.models.checkpoint import load_model

    name, _, variant = network.partition(":")
    model = load_model(name, variant or None, "random:0")
    steps: dict[str, float] = defaultdict(float)
    current, since = "start", time.process_time()

    def step(text: str) -> None:
        nonlocal current, since
        now = time.process_time()
        steps[current] += now - since
        current, since = text, now

    wall, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, ExportOptions(), Path(folder) / "net.onnx", step)
    step("end")
    return {
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "steps": dict(steps),
    }


def measure(network: str, runs: int) -> dict[str, Any]:
    """Medians of several runs."""
    command = [sys.executable, __file__, "--one", network]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for _ in range(runs)
    ]
    names = dict.fromkeys(name for one in found for name in one["steps"])
    return {
        "network": network,
        "wall": statistics.median(one["wall"] for one in found),
        "processor": statistics.median(one["processor"] for one in found),
        "steps": {
            name: statistics.median(one["steps"].get(name, 0.0) for one in found) for name in names
        },
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In GitHub Markdown."""
    lines = ["| network | wall, s | processor, s | steps, s |", "|---|---|---|---|"]
    for row in rows:
        large = {
            name: seconds
            for name, seconds in row["steps"].items()
            if seconds >= SHOWN * row["processor"]
        }
        rest = sum(row["steps"].values()) - sum(large.values())
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in large.items())
        lines.append(
            f"| {row['network']} | {row['wall']:.1f} | {row['processor']:.1f} | {steps}, "
            f"{OTHERS} {rest:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", metavar="NAME[:VARIANT]", help="[all]")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of one run
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one)))
        return
    from deblur_export.export.timing.machine import machine, physical_cores

    described = machine(physical_cores())
    rows = [measure(network, options.runs) for network in options.network or NETWORKS]
    print(f"{', '.join(f'{k} {v}' for k, v in described.items())}; medians of {options.runs}\n")
    print(table(rows))
    if options.json:
        options.json.write_text(
            json.dumps({"machine": described, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
