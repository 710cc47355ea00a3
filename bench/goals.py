"""What the speed on CPUs was aimed at, what was reached, and where the time goes, as Markdown.

`bench/tables.py` writes it into bench/README.md, from the JSON files that the other scripts left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

OPTIMIZED = "openvino-optimized openvino"
NATIVE = "Reference"  # OpenVINO's name for nodes of an extension: our native ops
LEAST = 0.005  # of a network's time; node types below are left out
PROFILES = ("network_m2aenet", "profile_algnet")
TEXT = """## Goals

Ratios of medians in one run, 2 threads, set before the kernels were written.

"""
PROFILE_TEXT = """### Where the time goes

Milliseconds a run in OpenVINO, by its own counters; `{native}` are our native ops, `Subgraph` its
fused element-wise code. Counting costs a little time itself.

"""


class Goal(NamedTuple):
    """`value` is a ratio; at least `bound` is wanted, or at most if `below`."""

    title: str
    value: float
    bound: float
    below: bool = False

    @property
    def reached(self) -> bool:
        return self.value <= self.bound if self.below else self.value >= self.bound

    def row(self) -> str:
        sign = "at most" if self.below else "at least"
        verdict = "yes" if self.reached else "**no**"
        return f"| {self.title} | {sign} {self.bound:g} | {self.value:.2f} | {verdict} |"


def goals(folder: Path) -> str:
    """A table of all goals whose files are there."""
    lines = [goal.row() for part in (_ops, _networks) for goal in part(folder)]
    return TEXT + "\n".join(["| | goal | ratio | reached |", "|---|---|---|---|", *lines]) + "\n\n"


def _ops(folder: Path) -> Iterator[Goal]:
    scans = _read(folder, "network_ops")["SelectiveScan D = 64, S = 32, L = 65536"]
    yield Goal(
        "SelectiveScan, L = 65,536: ONNX Runtime's body over native",
        _median(scans, "ONNX Runtime: custom op, portable body") / _median(scans, "native: kernel"),
        10,
    )
    ops = _read(folder, "ops")
    motion = ops["motion_deform_conv"]["C = 512, 128 x 128"]
    yield Goal(
        "MotionDeformConv, C = 512, 128 x 128: ONNX Runtime's DeformConv over native",
        _median(motion, "ONNX Runtime: custom op, ort body") / _median(motion, "native: kernel"),
        4,
    )
    points = ops["pruned_conv"]["C = 256, 128 x 128"]
    ratios = {
        point["dilated"]: _median(point["timings"], "ONNX Runtime: dense")
        / _median(point["timings"], "native: rows")
        for point in points
    }
    yield Goal(
        "PrunedConv, C = 256, 10 %: ONNX Runtime dense over native",
        ratios[min(ratios, key=lambda fraction: abs(fraction - 0.1))],
        3.5,
    )
    even = max((fraction for fraction, ratio in ratios.items() if ratio >= 1), default=0.0)
    title = "PrunedConv, C = 256: largest measured fraction at which native is faster"
    yield Goal(title, even, 0.4)


def _networks(folder: Path) -> Iterator[Goal]:
    algnet = _cases(folder, "network_algnet")
    portable = _seconds(algnet["fp32", None], "ort-optimized portable")
    for (precision, _), case in algnet.items():
        ratio = portable / _seconds(case, OPTIMIZED)
        yield Goal(f"ALGNet-32: ONNX Runtime portable over OpenVINO {precision}", ratio, 8)
    m2aenet = _cases(folder, "network_m2aenet")
    if (folder / "network_m2aenet_bf16.json").exists():  # more repeats
        m2aenet |= _cases(folder, "network_m2aenet_bf16")
    for precision in ("fp32", "bf16"):
        sparse, dense = m2aenet[precision, 0.1], m2aenet[precision, 1.0]
        title = f"M2AENet base at 10 %, OpenVINO {precision}, over"
        own = _seconds(sparse, OPTIMIZED)
        yield Goal(f"{title} its dense form", own / _seconds(dense, OPTIMIZED), 0.85, below=True)
        nafnet = _seconds(sparse, f"nafnet:32 {OPTIMIZED}")
        yield Goal(f"{title} NAFNet-32", own / nafnet, 1, below=True)
    for (precision, _), case in _cases(folder, "network_nafnet").items():
        for runtime, optimized in (("ort", "ort-optimized portable"), ("openvino", OPTIMIZED)):
            if f"{runtime}-plain" in case["candidates"] and optimized in case["candidates"]:
                ratio = _seconds(case, optimized) / _seconds(case, f"{runtime}-plain")
                title = f"NAFNet-32: {optimized}, {precision}, over the plain export"
                yield Goal(title, ratio, 1, below=True)


def profiles(folder: Path) -> str:
    """Milliseconds by type of node of the exported files in OpenVINO."""
    columns: dict[str, Mapping[str, float]] = {}
    for name in PROFILES:
        if not (folder / f"{name}.json").exists():
            continue
        for (precision, coverage), case in _cases(folder, name).items():
            masked = "" if coverage is None else f", {100 * coverage:g} %"
            for label, figure in case["candidates"].items():
                if label.endswith(OPTIMIZED) and "profile" in figure:
                    columns[f"{figure['network']} {precision}{masked}"] = figure["profile"]
    totals = {title: sum(profile.values()) for title, profile in columns.items()}
    kinds = dict.fromkeys(
        kind
        for title, profile in columns.items()
        for kind, seconds in profile.items()
        if seconds >= LEAST * totals[title]
    )
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for kind in kinds:
        cells = [f"{1e3 * profile.get(kind, 0):.0f}" for profile in columns.values()]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines.append(f"| all | {' | '.join(f'{1e3 * total:.0f}' for total in totals.values())} |")
    return PROFILE_TEXT.format(native=NATIVE) + "\n".join(lines) + "\n\n" + _bound(folder)


def _bound(folder: Path) -> str:
    """How fast ALGNet could be if only its convolutions and scans were left."""
    if not (folder / "profile_algnet.json").exists():
        return ""
    portable = _seconds(_cases(folder, "network_algnet")["fp32", None], "ort-optimized portable")
    bounds = []
    for (precision, _), case in _cases(folder, "profile_algnet").items():
        profile = case["candidates"][OPTIMIZED]["profile"]
        left = sum(profile.get(kind, 0) for kind in ("Convolution", "GroupConvolution", NATIVE))
        bounds.append(f"{portable / left:.1f} times in {precision}")
    return (
        "With nothing but its convolutions and native ops, ALGNet-32 would be faster than the "
        f"portable file in ONNX Runtime {' and '.join(bounds)}.\n\n"
    )


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def _cases(folder: Path, name: str) -> dict[tuple[str, float | None], Any]:
    """The cases of a `deblur-export bench` by precision and coverage."""
    cases = _read(folder, name)["cases"]
    return {(case["precision"], case["coverage"]): case for case in cases}


def _seconds(case: Mapping[str, Any], label: str) -> float:
    return float(case["median_seconds"][label])


def _median(timings: Mapping[str, Any], name: str) -> float:
    return float(timings[name]["median"])
