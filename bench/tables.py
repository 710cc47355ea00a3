"""Write bench/README.md, and the tables of docs/, from what the scripts left here.

python bench/ops.py --json bench/ops.json
python bench/network_ops.py --json bench/network_ops.json
python bench/networks.py
python bench/precision.py --json bench/precision.json
python bench/quantization.py --dataset DATASET --json bench/quantization.json
python bench/quality.py --dataset DATASET --json bench/quality.json
python bench/architectures.py
python bench/kernels.py         # on a machine with a CUDA GPU; bench/gpu/run_all.sh does both
python bench/networks_cuda.py   # likewise
python bench/tables.py
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import architectures
import goals
import gpu_goals
import precision
import quality
import quantization

FOLDER = Path(__file__).parent
DOCS = FOLDER.parent / "docs"
HEAD = """# Measurements

Written by `bench/tables.py` from the JSON files here, which the scripts named below make; they hold
every median, minimum and maximum, and the machine of their run. Milliseconds are medians.

"""
PRECISION = """`bench/precision.py`: the lowest PSNR to PyTorch in float32 over several sizes (int8:
over held-out photos), and the size of the file. ONNX Runtime rounds where the typed file does;
OpenVINO computes the float32 file in the precision, int8 in the `cpu` layout; TensorRT for RTX
builds an engine whose precision is verified, and does not run it. Int8 quantizes everything that
can be int8, without a budget. The networks are the tiny variants, so the sizes say little about
others.

"""
WIDTH = 100
# Around a table in a page of docs/.
MARKS = ("<!-- {}: written by bench/tables.py -->", "<!-- end of the {} -->")
INT8 = """## INT8

`bench/quantization.py`: demo weights, calibrated on the split train of a dataset, with a budget of
0.1 dB on the split val, then measured on 40 pairs of the split test, beside FP16 and BF16.
*Fraction* is that of the convolutions' multiply-adds in this precision.

"""
KERNELS = """## CUDA kernels

`bench/kernels.py`: medians in milliseconds of the GPU, and the fraction of its measured copy
bandwidth, for the bytes that have to move.

"""
GPU_NETWORKS = """### Whole networks in PyTorch

`bench/networks_cuda.py`: medians in milliseconds, the same network with the kernels and without
them, as CUDA graphs where they can be captured. Errors are against float64 under the same discrete
choices, relative to the largest output; M2AENet's mask is forced to 10 %.

"""
NOT_MEASURED = "Not measured: they have not run on a GPU yet.\n\n"
OPS = """## Custom ops

`bench/ops.py`, `bench/network_ops.py`: the runs of the candidates are interleaved in one process.
Errors are against float64, relative to the largest output.

"""
NETWORKS = """## Whole networks, 1280x720

`bench/networks.py` calls `deblur-export bench`: every candidate runs in its own process with the
same threads, and their runs are interleaved. *plain* is `torch.onnx.export` of the same network
without this package, *optimized* a file that `deblur-export onnx` wrote for the target; OpenVINO
runs the latter with the native ops. *Memory* is the peak of the process from its first run on,
*difference* the largest to PyTorch in float32 on an image in 0..1.

"""
NOTES = {
    "motion": "ONNX Runtime has a fast path for GridSample with `align_corners=0`, which the "
    "portable body uses; the usual form with `align_corners=1` is several times slower. `native` "
    "are the kernels of `plugins/csrc`, `torch: definition` the definitions in PyTorch.",
    "pruned": "The columns are the fraction of pixels in the dilated mask. `rows` gathers the "
    "masked pixels; the `ort` body uses it below 35 % and the dense form above. The native kernel "
    "always gathers. `unfold` is one matrix product with nine times the multiply-adds, which the "
    "exporter's pass declines.",
    "network": "The scan is compared with one ONNX Scan over all steps, local pooling (TLC) with "
    "the official differences of cumulative sums.",
}


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n\n"


def ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def by_size(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One column a size, and the largest error of any."""
    names = list(dict.fromkeys(name for timings in results.values() for name in timings))
    rows = {}
    for name in names:
        found = [timings.get(name) for timings in results.values()]
        worst = max(t["error"] for t in found if t)
        rows[name] = [*(ms(t["median"]) if t else "" for t in found), f"{worst:.0e}"]
    return table([*results, "largest error"], rows)


def pruned(points: Sequence[Mapping[str, Any]]) -> str:
    names = points[0]["timings"]
    rows = {name: [ms(p["timings"][name]["median"]) for p in points] for name in names}
    return table([f"{p['dilated']:.0%}".replace("%", " %") for p in points], rows)


def networks() -> str:
    """A table for each file that `bench/networks.py` left: one column a precision and coverage."""
    text = ""
    for path in sorted(FOLDER.glob("network_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if "cases" not in report:
            continue
        columns, rows = [], {}
        for index, case in enumerate(report["cases"]):
            coverage = case["coverage"]
            forced = "" if coverage is None else f", {100 * coverage:g} % masked"
            columns += [f"{case['precision']}{forced}, ms", "memory, GB", "difference"]
            for label, figure in case["candidates"].items():
                cells = rows.setdefault(f"{figure['network']} {figure['candidate']} {label}", {})
                cells[index] = network_cells(figure)
        body = {
            name_of(key): [
                cell for i in range(len(report["cases"])) for cell in cells.get(i, [""] * 3)
            ]
            for key, cells in rows.items()
        }
        title = path.stem.removeprefix("network_")
        line = machine_line(report["machine"])
        text += f"### {title}\n\n{line}\n\n" + table(columns, body)
    return text


def memory() -> str:
    """Peaks of one network at several sizes."""
    path = FOLDER / "memory_algnet.json"
    if not path.exists():
        return ""
    report = json.loads(path.read_text(encoding="utf-8"))
    cases = report["cases"]
    labels = dict.fromkeys(label for case in cases for label in case["candidates"])
    rows = {
        label: [f"{case['candidates'][label]['peak_bytes'] / 1e9:.2f}" for case in cases]
        for label in labels
    }
    columns = ["{1}x{0}, GB".format(*case["size"]) for case in cases]
    line = machine_line(report["machine"])
    return f"### Memory of algnet:32\n\n{line}\n\n" + table(columns, rows)


def write_between(path: Path, name: str, text: str) -> None:
    """Put a text between the two marks of this name in a Markdown file."""
    start, end = (mark.format(name) for mark in MARKS)
    before, rest = path.read_text(encoding="utf-8").split(start)
    _, after = rest.split(end)
    path.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def matrix() -> str:
    report = json.loads((FOLDER / "precision.json").read_text(encoding="utf-8"))
    return f"{PRECISION}{machine_line(report['machine'])}\n\n{precision.matrix(report['results'])}"


def quantization_summary() -> str:
    """What reduced precision costs the demo weights, in two sentences."""
    report = json.loads((FOLDER / "quantization.json").read_text(encoding="utf-8"))
    rows = [(title, row) for title, found in report["results"].items() for row in found]
    typed = max(abs(row["test"]) for _, row in rows if row["precision"] != "int8")
    lost = max(row["test"] for _, row in rows if row["precision"] == "int8")
    fractions = {title: row["fraction"] for title, row in rows if row["precision"] == "int8"}
    ordered = sorted(fractions.items(), key=lambda item: -item[1])
    listed = ", ".join(
        f"{fraction:.0%} ({title})".replace("%", " %") for title, fraction in ordered
    )
    return textwrap.fill(
        f"With the demo weights, on {report['pairs']} held-out pairs, FP16 and BF16 change the "
        f"mean PSNR against the sharp photos by at most {typed:.4f} dB. INT8 takes {listed} of the "
        f"convolutions' multiply-adds and costs at most {lost:.4f} dB (`bench/quantization.py`).",
        WIDTH,
    )


def quality_table() -> str:
    report = json.loads((FOLDER / "quality.json").read_text(encoding="utf-8"))
    lines = [*quality.HEAD, quality.row("blurred input", "", report["input"], [" "] * 6)]
    fields = set(quality.Evaluation._fields) - {"title", "means"}
    for title, figures in report.items():
        if ":" in title:
            means = {name: figures[name] for name in quality.COLUMNS}
            known = {name: figures[name] for name in fields}
            lines.append(quality.Evaluation(title=title, means=means, **known).row())
    return "\n".join(lines)


def quantization_table() -> str:
    report = json.loads((FOLDER / "quantization.json").read_text(encoding="utf-8"))
    lines = [quantization.HEAD, "|---" * (quantization.HEAD.count("|") - 1) + "|"]
    for title, rows in report["results"].items():
        lines += [quantization.text(title, row) for row in rows]
    return f"{machine_line(report['machine'])}\n\n" + "\n".join(lines) + "\n\n"


def kernels(folder: Path = FOLDER) -> str:
    """A table for each setting of `bench/kernels.py`."""
    path = folder / "kernels.json"
    if not path.exists():
        return NOT_MEASURED + goal_table(gpu_goals.kernel_rows({}))
    report = json.loads(path.read_text(encoding="utf-8"))
    text = f"{report['gpu']}, {report['versions']}.\n\n"
    text += goal_table(gpu_goals.kernel_rows(report["results"]))
    for title, result in report["results"].items():
        if result["failed"]:
            text += f"### {title}\n\nFailed: {result['failed']}\n\n"
            continue
        rows = {}
        for name, timing in result["candidates"].items():
            rate = result["bytes"] / (timing["median"] / 1e3) / report["copy_bytes_per_second"]
            rows[name] = [f"{timing['median']:.4f}", f"{rate:.0%}", f"{timing['error']:.0e}"]
        text += f"### {title}\n\n" + table(["ms", "fraction", "error"], rows)
    return text


def goal_table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    """Setting, goal, what was measured, whether that reaches it."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["| | goal | measured | reached |", "|---|---|---|---|", *lines]) + "\n\n"


def gpu_networks(folder: Path = FOLDER) -> str:
    """The table of `bench/networks_cuda.py`."""
    path = folder / "networks_cuda.json"
    if not path.exists():
        return GPU_NETWORKS + NOT_MEASURED + goal_table(gpu_goals.network_rows({}))
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = {
        f"{title}, {name}": [
            f"{timing['median']:.2f}",
            f"{timing['error']:.0e}",
            "" if timing["graph"] else "launches included",
        ]
        for title, result in report["results"].items()
        for name, timing in result["candidates"].items()
    }
    where = f"{report['gpu']}, {report['versions']}, {report['size']}.\n\n"
    failed = {
        f"{title}, failed": ["", "", result["failed"]]
        for title, result in report["results"].items()
        if result["failed"]
    }
    reached = goal_table(gpu_goals.network_rows(report["results"]))
    return GPU_NETWORKS + where + reached + table(["ms", "error", ""], rows | failed)


def machine_line(machine: Mapping[str, str]) -> str:
    start = f"{machine['cpu']}, {machine['threads']} threads, load {machine['load']} at the start"
    return f"{start}, {machine['versions']}."


def network_cells(figure: Mapping[str, Any]) -> list[str]:
    median = figure["median_seconds"]
    if median is None:
        return [figure["reason"], "", ""]
    difference = figure["max_difference"]
    memory = f"{figure['peak_bytes'] / 1e9:.1f}" if figure["peak_bytes"] else ""
    return [ms(1e3 * median), memory, "" if difference is None else f"{difference:.0e}"]


def name_of(key: str) -> str:
    """ "nafnet:32 ort-optimized ort-optimized portable" -> "nafnet:32 ort-optimized portable"."""
    network, candidate, label = key.split(" ", 2)
    return f"{network} {label.removeprefix(network + ' ') or candidate}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--gpu", type=Path, metavar="FOLDER", help="only print the tables of GPU results in FOLDER"
    )
    if (folder := parser.parse_args().gpu) is not None:
        print(KERNELS + kernels(folder) + gpu_networks(folder))
        return
    ops, network = (
        json.loads((FOLDER / name).read_text(encoding="utf-8"))
        for name in ("ops.json", "network_ops.json")
    )
    whole = goals.goals(FOLDER) + NETWORKS + networks() + memory() + goals.profiles(FOLDER)
    text = HEAD + whole + INT8 + quantization_table() + KERNELS + kernels() + gpu_networks() + OPS
    for key, value in ops["machine"].items():
        text += f"- {key}: {value}\n"
    text += "\n### MotionDeformConv\n\n" + by_size(ops["motion_deform_conv"]) + NOTES["motion"]
    for size, points in ops["pruned_conv"].items():
        text += f"\n\n### PrunedConv, {size}\n\n" + pruned(points).rstrip("\n")
    text += "\n\n" + NOTES["pruned"] + "\n\n"
    for op in ("SelectiveScan", "LocalMean"):
        found = {title: timings for title, timings in network.items() if title.startswith(op)}
        text += f"### {op}\n\n" + by_size(found)
    (FOLDER / "README.md").write_text(text + NOTES["network"] + "\n", encoding="utf-8")
    write_between(DOCS / "precision.md", "matrix of precisions", matrix())
    write_between(DOCS / "precision.md", "summary", quantization_summary())
    found = architectures.read(architectures.RESULTS)
    write_between(DOCS / "networks.md", "table of architectures", architectures.table(found))
    write_between(DOCS / "training.md", "quality of the demo weights", quality_table())


if __name__ == "__main__":
    main()
