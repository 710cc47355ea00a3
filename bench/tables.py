"""Write bench/README.md from the numbers that the scripts left: ops.json and network_ops.json.

python bench/ops.py --json bench/ops.json
python bench/network_ops.py --json bench/network_ops.json
python bench/tables.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
HEAD = """# Measurements

Written by `bench/tables.py` from `ops.json` and `network_ops.json`, which `bench/ops.py` and
`bench/network_ops.py` make; the files hold every median, minimum and maximum. Candidates take
turns in one process. Milliseconds are medians; errors are against float64, relative to the largest
output.

"""
NOTES = {
    "motion": "ONNX Runtime has a fast path for GridSample with `align_corners=0`, which the "
    "portable body uses; the usual form with `align_corners=1` is several times slower. `native` "
    "are the kernels of `plugins/csrc`, `torch: ours` the definition in PyTorch.",
    "pruned": "The columns are the share of pixels in the dilated mask. `rows` gathers the masked "
    "pixels; the `ort` body takes it below 35 % and the dense form above. The native kernel always "
    "gathers. `unfold` is one matrix product with nine times the multiply-adds, which the "
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


def main() -> None:
    ops, network = (
        json.loads((FOLDER / name).read_text()) for name in ("ops.json", "network_ops.json")
    )
    text = HEAD
    for key, value in ops["machine"].items():
        text += f"- {key}: {value}\n"
    text += "\n## MotionDeformConv\n\n" + by_size(ops["motion_deform_conv"]) + NOTES["motion"]
    for size, points in ops["pruned_conv"].items():
        text += f"\n\n## PrunedConv, {size}\n\n" + pruned(points).rstrip("\n")
    text += "\n\n" + NOTES["pruned"] + "\n\n"
    for op in ("SelectiveScan", "LocalMean"):
        found = {title: timings for title, timings in network.items() if title.startswith(op)}
        text += f"## {op}\n\n" + by_size(found)
    (FOLDER / "README.md").write_text(text + NOTES["network"] + "\n")


if __name__ == "__main__":
    main()
