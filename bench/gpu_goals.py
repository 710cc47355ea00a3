"""The goals of the CUDA kernels and networks, and whether results reach them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_timing import KERNEL
from kernel_baselines import MAMBA, TORCHVISION, TRITON_SCAN

DENSE = ("torch, dense", "torch, dense, NHWC")
Results = Mapping[str, Mapping[str, Any]]  # of a JSON file, by title


@dataclass(frozen=True)
class Goal:
    """One bound on a setting.

    Attributes:
        title: of the setting.
        bound: milliseconds at most, or with `baselines` how many times faster than the fastest of
            these at least.
        baselines: names of candidates; those that were not measured do not count.
    """

    title: str
    bound: float
    baselines: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        if not self.baselines:
            return f"at most {self.bound:g} ms"
        return f"{self.bound:g} times as fast as {' or '.join(self.baselines)}"

    def row(self, results: Results) -> tuple[str, str]:
        """What was measured, and whether that reaches the goal, in words."""
        timings = results.get(self.title, {}).get("candidates", {})
        if KERNEL not in timings:
            return results.get(self.title, {}).get("failed") or "not measured", ""
        own = timings[KERNEL]["median"]
        if not self.baselines:
            return f"{own:.3f} ms", _verdict(own <= self.bound)
        found = {name: timings[name]["median"] for name in self.baselines if name in timings}
        if not found:
            return "the baseline was not there", ""
        name = min(found, key=lambda key: found[key])
        ratio = found[name] / own
        return f"{ratio:.2f} times {name}", _verdict(ratio >= self.bound)


def _verdict(reached: bool) -> str:
    return "yes" if reached else "**no**"


# The first level of ALGNet-32 at 1280 x 720, the deformable convolution of M2AENet, and its pruned
# branch at two of its levels.
SCAN = "SelectiveScan, D = 64, S = 32, L = 921600, float32"
MOTION = "MotionDeformConv, C = 512, 270 x 180, {}"
PRUNED = "PrunedConv, C = {}, 40% masked, float16"
GOALS = (
    Goal(SCAN, 1.0),
    Goal(SCAN, 3.0, (MAMBA, TRITON_SCAN)),
    Goal(MOTION.format("float32"), 3.0, (TORCHVISION,)),
    Goal(MOTION.format("float16"), 3.0, (TORCHVISION,)),
    Goal(PRUNED.format("128, 640 x 360"), 1.0, DENSE),
    Goal(PRUNED.format("256, 128 x 128"), 1.0, DENSE),
)
TITLES = tuple(dict.fromkeys(goal.title for goal in GOALS))
# M2AENet at a coverage of 10 % with the kernels against NAFNet-32.
NETWORKS = ("m2aenet:base, {}", "nafnet:32, {}")
NETWORK_BOUND = 1.0
PRECISIONS = ("float32", "bfloat16 autocast")


def kernel_rows(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """Setting, goal, what was measured, and whether that is enough."""
    for goal in GOALS:
        yield (goal.title, goal.wanted, *goal.row(results))


def network_rows(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """As `kernel_rows`, of whole networks."""
    for precision in PRECISIONS:
        titles = [name.format(precision) for name in NETWORKS]
        times = [
            results.get(t, {}).get("candidates", {}).get(KERNEL, {}).get("median") for t in titles
        ]
        wanted = f"at most {NETWORK_BOUND:g} times {titles[1]}"
        if None in times:
            yield titles[0], wanted, "not measured", ""
        else:
            ratio = times[0] / times[1]
            yield titles[0], wanted, f"{ratio:.2f}", _verdict(ratio <= NETWORK_BOUND)
