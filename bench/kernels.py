"""Measure the CUDA kernels against their baselines on this machine's GPU.

    python bench/kernels.py [--only OP ...] [--quick] [--json FILE] [--plot FILE]

Builds the kernels for this GPU first where they are missing. The settings of the goals come first.
Candidates are captured in a CUDA graph each and interleaved; times are those of the GPU. The
fraction is that of the measured copy bandwidth, for the bytes that any implementation has to move:
inputs once, outputs once. float32 runs without TF32. The file of results is written after every
setting and keeps what it holds of other settings. A failure of the kernel is recorded as such.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gpu_timing as timing
import kernel_baselines as baselines
import torch
from gpu_goals import TITLES
from gpu_timing import KERNEL, Call, Result, measure, size
from torch import Tensor

from deblur_export.plugins.libraries import cuda
from deblur_export.plugins.ops import OPS

REPEATS, QUICK_REPEATS = 15, 5
TAPS = 9
DTYPES = (torch.float32, torch.float16)


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        scans: D, S, L of SelectiveScan.
        motions: C, H, W, gate of MotionDeformConv.
        pruned: C, H, W of PrunedConv.
        coverages: fractions of masked pixels of PrunedConv.
        deform: C, H, W, kernel of DeformConv2d.
        image: C, H, W of LocalMean and DynamicFilter.
        window: of LocalMean.
        scores: H, W of TopPixels.
        copy: bytes of the copy that measures the bandwidth.
    """

    scans: tuple[tuple[int, int, int], ...]
    motions: tuple[tuple[int, int, int, int], ...]
    pruned: tuple[tuple[int, int, int], ...]
    coverages: tuple[float, ...]
    deform: tuple[int, int, int, int]
    image: tuple[int, int, int]
    window: int
    scores: tuple[int, int]
    copy: int


FULL = Sizes(
    # the levels of ALGNet-32 at 1280 x 720
    scans=(
        (64, 32, 921_600),
        (128, 32, 230_400),
        (256, 32, 57_600),
        (512, 32, 14_400),
        (1024, 32, 3_600),
    ),
    motions=((512, 180, 270, 0), (128, 360, 640, 1), (512, 90, 160, 1)),
    pruned=((128, 360, 640), (256, 128, 128)),
    coverages=(0.05, 0.1, 0.2, 0.4, 0.6, 1.0),
    deform=(64, 256, 256, 5),
    image=(64, 720, 1280),
    window=384,
    scores=(360, 640),
    copy=2**31,
)
TINY = Sizes(  # of a dry run
    scans=((4, 16, 40),),
    motions=((4, 6, 8, 1),),
    pruned=((4, 6, 8),),
    coverages=(0.4,),
    deform=(2, 6, 8, 5),
    image=(2, 12, 16),
    window=6,
    scores=(8, 12),
    copy=2**16,
)


@dataclass(frozen=True)
class Setting:
    """One thing to measure; `run` takes the number of repeats."""

    op: str
    title: str
    run: Callable[[int], Result]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, device=timing.DEVICE)


def smooth(n: int, c: int, h: int, w: int, cell: int = 16) -> Tensor:
    """A field that varies over about `cell` pixels, as masks and motion do."""
    small = randn(n, c, h // cell + 2, w // cell + 2)
    return torch.nn.functional.interpolate(small, (h, w), mode="bicubic")


def doubled(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in tensors)


def kernel_of(op: str, *tensors: Tensor, **attributes: int) -> dict[str, Call]:
    """The CUDA kernel as a candidate; in a dry run the op as PyTorch has it on the CPU."""
    if timing.DEVICE == "cuda":
        return {KERNEL: lambda: cuda.compute(OPS[op], *tensors, **attributes)}
    return {KERNEL: lambda: baselines.on_cpu(op, *tensors, **attributes)}


def bench_scan(d: int, s: int, length: int, dtype: torch.dtype, repeats: int) -> Result:
    from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference

    u, B, C, z = (randn(1, rows, length).to(dtype) for rows in (d, s, s, d))
    delta, D = randn(1, d, length) - 4.6, torch.ones(d, device=timing.DEVICE)
    A = -torch.arange(1.0, s + 1, device=timing.DEVICE).repeat(d, 1)
    tensors = (u, delta, A, B, C, D, z)
    with torch.no_grad():
        exact = selective_scan_reference(*doubled(tensors), None, delta_softplus=1)
    candidates = kernel_of("SelectiveScan", *tensors, delta_softplus=1) | baselines.scan_baselines(
        *tensors
    )
    return measure(candidates, exact, size(*tensors) + size(u), repeats)


def bench_motion(c: int, h: int, w: int, gate: int, dtype: torch.dtype, repeats: int) -> Result:
    x, weight, bias = (t.to(dtype) for t in (randn(1, c, h, w), randn(c, 1, 3, 3), randn(c)))
    tensors = (x, 4 * smooth(1, 2 * TAPS, h, w), weight, bias)
    exact = baselines.torch_motion(*doubled(tensors), gate)
    candidates = kernel_of("MotionDeformConv", *tensors, gate=gate) | baselines.motion_baselines(
        *tensors, gate
    )
    return measure(candidates, exact, size(*tensors) + size(x) // (1 + gate), repeats)


def bench_pruned(
    c: int, h: int, w: int, coverage: float, dtype: torch.dtype, repeats: int
) -> Result:
    field = smooth(1, 1, h, w)
    mask = field >= field.flatten().sort().values[round((1 - coverage) * (h * w - 1))]
    shapes = (1, c, h, w), (2 * c, c, 1, 1), (2 * c,), (2 * c, 1, 3, 3), (2 * c,)
    x, *weights = (randn(*shape).to(dtype) for shape in shapes)
    weights[0] /= c**0.5
    tensors = (x, mask.to(dtype), *weights)
    candidates = kernel_of("PrunedConv", *tensors) | baselines.pruned_baselines(*tensors)
    exact = baselines.dense_pruned(*doubled(tensors))
    return measure(candidates, exact, size(*tensors) + size(x), repeats)


def bench_deform(c: int, h: int, w: int, kernel: int, dtype: torch.dtype, repeats: int) -> Result:
    taps = kernel * kernel
    shapes = (1, c, h, w), (c, c, kernel, kernel), (c,), (1, taps, h, w)
    x, weight, bias, mask = (randn(*shape).to(dtype) for shape in shapes)
    tensors = (x, 2 * smooth(1, 2 * taps, h, w), weight / c, bias, mask)
    candidates = kernel_of("DeformConv2d", *tensors, kernel=kernel) | baselines.deform_baselines(
        *tensors
    )
    exact = baselines.torch_deform(*doubled(tensors))
    return measure(candidates, exact, size(*tensors) + size(x), repeats)


def bench_mean(shape: tuple[int, int, int], window: int, repeats: int) -> Result:
    x = randn(1, *shape)
    baseline = {"torch, cumulative sums": lambda: baselines.cumulative_mean(x, window)}
    exact = baselines.cumulative_mean(x.double(), window)
    return measure(kernel_of(f"LocalMean{window}", x) | baseline, exact, 2 * size(x), repeats)


def bench_filter(shape: tuple[int, int, int], repeats: int) -> Result:
    kernel = 5
    x, filters = randn(1, *shape), randn(1, shape[0], kernel**2)
    baseline = {"torch, grouped convolution": lambda: baselines.grouped_filter(x, filters, kernel)}
    exact = baselines.grouped_filter(x.double(), filters.double(), kernel)
    moved = 2 * size(x) + size(filters)
    return measure(
        kernel_of(f"DynamicFilter{kernel}", x, filters) | baseline, exact, moved, repeats
    )


def bench_top(shape: tuple[int, int], repeats: int) -> Result:
    scores = randn(1, 1, *shape)
    count = scores.numel() // 4
    baseline = {"torch, two sorts": lambda: baselines.sorted_top(scores, count)}
    exact = baselines.sorted_top(scores, count).double()
    moved = size(scores) + 8 * count
    return measure(kernel_of("TopPixels", scores, ratio=2) | baseline, exact, moved, repeats)


def settings(sizes: Sizes) -> Iterator[Setting]:
    """Everything that can be measured, by op."""
    for dtype in DTYPES:
        name = str(dtype)[6:]
        for d, s, length in sizes.scans:
            title = f"SelectiveScan, D = {d}, S = {s}, L = {length}, {name}"
            yield Setting("SelectiveScan", title, _with(bench_scan, d, s, length, dtype))
        for c, h, w, gate in sizes.motions:
            title = f"MotionDeformConv{', gated' if gate else ''}, C = {c}, {w} x {h}, {name}"
            yield Setting("MotionDeformConv", title, _with(bench_motion, c, h, w, gate, dtype))
        for c, h, w in sizes.pruned:
            for coverage in sizes.coverages:
                title = f"PrunedConv, C = {c}, {w} x {h}, {coverage:.0%} masked, {name}"
                run = _with(bench_pruned, c, h, w, coverage, dtype)
                yield Setting("PrunedConv", title, run)
        c, h, w, kernel = sizes.deform
        title = f"DeformConv2d {kernel} x {kernel}, C = {c}, {w} x {h}, {name}"
        yield Setting("DeformConv2d", title, _with(bench_deform, *sizes.deform, dtype))
    c, h, w = sizes.image
    title = f"LocalMean{sizes.window}, C = {c}, {w} x {h}"
    yield Setting("LocalMean", title, _with(bench_mean, sizes.image, sizes.window))
    yield Setting(
        "DynamicFilter", f"DynamicFilter5, C = {c}, {w} x {h}", _with(bench_filter, sizes.image)
    )
    h, w = sizes.scores
    yield Setting("TopPixels", f"TopPixels, {w} x {h}", _with(bench_top, sizes.scores))


def _with(function: Callable[..., Result], *arguments: object) -> Callable[[int], Result]:
    return lambda repeats: function(*arguments, repeats)


ALL_OPS = tuple(dict.fromkeys(setting.op for setting in settings(TINY)))


def chosen(sizes: Sizes, only: list[str], quick: bool) -> list[Setting]:
    """The settings of the ops in `only`, or of all, those of the goals first; with `quick` one for
    each op and type."""
    found = [setting for setting in settings(sizes) if not only or setting.op in only]
    found.sort(key=lambda setting: setting.title not in TITLES)
    if not quick:
        return found
    first = {(s.op, s.title.rsplit(",", 1)[-1]): s for s in reversed(found)}
    return [setting for setting in found if setting in first.values()]


def copy_bandwidth(count: int) -> float:
    """Bytes read and written per second by a copy on the device."""
    source = torch.zeros(count, dtype=torch.uint8, device=timing.DEVICE)
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    timing.elapsed(copy, 3)
    times = [timing.elapsed(copy, 3) for _ in range(5)]
    return 2 * count / (statistics.median(times) / 1e3)


def print_table(title: str, result: Result, bandwidth: float) -> None:
    print(f"\n{title}: ms, fraction of the copy bandwidth, error")
    if result.failed:
        print(f"  failed: {result.failed}", flush=True)
    for name, found in result.candidates.items():
        fraction = result.bytes / (found.median / 1e3) / bandwidth
        eager = "" if found.graph else "  (launches included)"
        print(
            f"  {name:36} {found.median:9.4f} {fraction:7.1%}   {found.error:.0e}{eager}",
            flush=True,
        )


def plot(results: dict[str, Result], path: Path) -> None:
    """Bars: how many times faster the kernel is than each baseline. Nothing without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
    mpl.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{title}\n{name}", found.median / result.candidates[KERNEL].median)
        for title, result in results.items()
        for name, found in result.candidates.items()
        if name != KERNEL
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(bars) + 1))
    axes.barh([label for label, _ in bars][::-1], [ratio for _, ratio in bars][::-1])
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("time of the baseline / time of the kernel")
    axes.tick_params(axis="y", labelsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=ALL_OPS, default=[], help="[all]")
    parser.add_argument("--quick", action="store_true", help="one size per op, fewer repeats")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, no GPU")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--plot", type=Path, help="[no plot]")
    options = parser.parse_args()
    if options.dry_run:
        timing.DEVICE = "cpu"
    timing.check_writable(options.json)
    timing.require_gpu("bench/kernels.py")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    sizes = TINY if options.dry_run else FULL
    bandwidth = copy_bandwidth(sizes.copy)
    about = timing.machine() | {"copy_bytes_per_second": bandwidth}
    for key, value in about.items():
        print(f"{key}: {value}")
    repeats = QUICK_REPEATS if options.quick or options.dry_run else REPEATS
    results: dict[str, Result] = {}
    for setting in chosen(sizes, options.only, options.quick):
        try:
            results[setting.title] = setting.run(repeats)
        except (RuntimeError, AssertionError) as error:  # an illegal address spoils the process
            results[setting.title] = Result(0, {}, f"{error!r:.300}")
        print_table(setting.title, results[setting.title], bandwidth)
        timing.add_results(options.json, about, results)
    if options.plot is not None:
        plot(results, options.plot)
    if any(result.failed for result in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
