"""Measure the CUDA kernels against their baselines on this machine's GPU.

    python bench/kernels.py [--quick] [--json bench/kernels.json] [--plot bench/kernels.png]

Builds the kernels for this GPU first where they are missing. Candidates are captured in a CUDA
graph each and take turns; times are of the GPU. `share` is of the measured copy bandwidth, for the
bytes that any implementation has to move: inputs once, outputs once. float32 runs without TF32.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import kernel_baselines as baselines
import torch
from torch import Tensor

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.compile import cuda as cuda_compiler
from deblur_export.plugins.libraries import cuda
from deblur_export.plugins.ops import OPS

Call = Callable[[], Tensor]
REPEATS, QUICK_REPEATS = 15, 5
SAMPLE_MS = 2.0  # a sample repeats its candidate for about this long
COPY_BYTES = 2**31
KERNEL = "deblur_export"
DTYPES = (torch.float32, torch.float16)
TAPS = 9

# D, S, L: the levels of ALGNet-32 at 1280x720.
SCANS = (
    (64, 32, 921_600),
    (128, 32, 230_400),
    (256, 32, 57_600),
    (512, 32, 14_400),
    (1024, 32, 3_600),
)
MOTIONS = ((512, 180, 270, 0), (128, 360, 640, 1), (512, 90, 160, 1))  # C, H, W, gate
PRUNED = ((256, 128, 128), (128, 360, 640))  # C, H, W
COVERAGES = (0.05, 0.1, 0.2, 0.4, 0.6, 1.0)
DEFORM = (64, 256, 256, 5)  # C, H, W, kernel


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call, and the largest error as a share of the largest output."""

    median: float
    minimum: float
    maximum: float
    error: float
    graph: bool  # whether it was captured; else launches are part of the time


@dataclass(frozen=True)
class Result:
    """One setting: the bytes it has to move, and what each candidate took."""

    bytes: int
    candidates: dict[str, Timing]


def captured(call: Call) -> tuple[Callable[[], object], bool]:
    """The call as a graph, or itself where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize()
        return call, False
    return graph.replay, True


def elapsed(run: Callable[[], object], times: int) -> float:
    """Milliseconds of one run."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / times


def measure(candidates: dict[str, Call], exact: Tensor, moved: int, repeats: int) -> Result:
    """Time the candidates in interleaved runs; a baseline that fails is reported on stderr and left
    out."""
    runs, errors = {}, {}
    for name, call in candidates.items():
        try:
            y = call().double()
            errors[name] = float((y - exact).abs().max() / exact.abs().max())
            runs[name] = captured(call)
        except Exception as failure:  # whatever a baseline raises, it does not end the run
            if name == KERNEL:
                raise
            print(f"{name} left out: {failure!r:.200}", file=sys.stderr)
    counts = {
        name: max(1, int(SAMPLE_MS / max(elapsed(run, 2), 1e-4))) for name, (run, _) in runs.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (run, _) in runs.items():
            samples[name].append(elapsed(run, counts[name]))
    timings = {
        name: Timing(statistics.median(times), min(times), max(times), errors[name], runs[name][1])
        for name, times in samples.items()
    }
    return Result(moved, timings)


def size(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def doubled(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in tensors)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda")


def smooth(n: int, c: int, h: int, w: int, cell: int = 16) -> Tensor:
    """A field that varies over about `cell` pixels, as masks and motion do."""
    small = randn(n, c, h // cell + 2, w // cell + 2)
    return torch.nn.functional.interpolate(small, (h, w), mode="bicubic")


def bench_scan(d: int, s: int, length: int, dtype: torch.dtype, repeats: int) -> Result:
    from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference

    u, B, C, z = (randn(1, rows, length).to(dtype) for rows in (d, s, s, d))
    delta, D = randn(1, d, length) - 4.6, torch.ones(d, device="cuda")
    A = -torch.arange(1.0, s + 1, device="cuda").repeat(d, 1)
    tensors = (u, delta, A, B, C, D, z)
    with torch.no_grad():
        exact = selective_scan_reference(*doubled(tensors), None, delta_softplus=1)
    candidates: dict[str, Call] = {
        KERNEL: lambda: cuda.compute(OPS["SelectiveScan"], *tensors, delta_softplus=1)
    }
    moved = size(*tensors) + size(u)
    return measure(candidates | baselines.scan_baselines(*tensors), exact, moved, repeats)


def bench_motion(c: int, h: int, w: int, gate: int, dtype: torch.dtype, repeats: int) -> Result:
    x, weight, bias = (t.to(dtype) for t in (randn(1, c, h, w), randn(c, 1, 3, 3), randn(c)))
    offset = 4 * smooth(1, 2 * TAPS, h, w)
    tensors = (x, offset, weight, bias)
    exact = baselines.torch_motion(*doubled(tensors), gate)
    candidates: dict[str, Call] = {
        KERNEL: lambda: cuda.compute(OPS["MotionDeformConv"], *tensors, gate=gate)
    }
    moved = size(*tensors) + size(x) // (1 + gate)
    return measure(candidates | baselines.motion_baselines(*tensors, gate), exact, moved, repeats)


def bench_pruned(
    c: int, h: int, w: int, coverage: float, dtype: torch.dtype, repeats: int
) -> Result:
    field = smooth(1, 1, h, w)
    mask = field >= field.flatten().sort().values[round((1 - coverage) * (h * w - 1))]
    shapes = (1, c, h, w), (2 * c, c, 1, 1), (2 * c,), (2 * c, 1, 3, 3), (2 * c,)
    x, *weights = (randn(*shape).to(dtype) for shape in shapes)
    weights[0] /= c**0.5
    tensors = (x, mask.to(dtype), *weights)
    exact = baselines.dense_pruned(*doubled(tensors))
    candidates: dict[str, Call] = {KERNEL: lambda: cuda.compute(OPS["PrunedConv"], *tensors)}
    moved = size(*tensors) + size(x)
    return measure(candidates | baselines.pruned_baselines(*tensors), exact, moved, repeats)


def bench_deform(c: int, h: int, w: int, kernel: int, dtype: torch.dtype, repeats: int) -> Result:
    taps = kernel * kernel
    x, weight, bias, mask = (
        t.to(dtype)
        for t in (
            randn(1, c, h, w),
            randn(c, c, kernel, kernel) / c,
            randn(c),
            randn(1, taps, h, w),
        )
    )
    tensors = (x, 2 * smooth(1, 2 * taps, h, w), weight, bias, mask)
    exact = baselines.torch_deform(*doubled(tensors))
    candidates: dict[str, Call] = {
        KERNEL: lambda: cuda.compute(OPS["DeformConv2d"], *tensors, kernel=kernel)
    }
    moved = size(*tensors) + size(x)
    return measure(candidates | baselines.deform_baselines(*tensors), exact, moved, repeats)


def bench_others(repeats: int) -> Iterator[tuple[str, Result]]:
    """The small ops at one size each, float32."""
    x, window, kernel = randn(1, 64, 720, 1280), 384, 5
    filters, scores = randn(1, 64, kernel**2), randn(1, 1, 360, 640)
    count = scores.numel() // 4
    yield (
        f"LocalMean{window}, C = 64, 1280 x 720",
        measure(
            {
                KERNEL: lambda: cuda.compute(OPS[f"LocalMean{window}"], x),
                "torch, cumulative sums": lambda: baselines.cumulative_mean(x, window),
            },
            baselines.cumulative_mean(x.double(), window),
            2 * size(x),
            repeats,
        ),
    )
    yield (
        f"DynamicFilter{kernel}, C = 64, 1280 x 720",
        measure(
            {
                KERNEL: lambda: cuda.compute(OPS[f"DynamicFilter{kernel}"], x, filters),
                "torch, grouped convolution": lambda: baselines.grouped_filter(x, filters, kernel),
            },
            baselines.grouped_filter(x.double(), filters.double(), kernel),
            2 * size(x) + size(filters),
            repeats,
        ),
    )
    yield (
        "TopPixels, 640 x 360",
        measure(
            {
                KERNEL: lambda: cuda.compute(OPS["TopPixels"], scores, ratio=2),
                "torch, two sorts": lambda: baselines.sorted_top(scores, count),
            },
            baselines.sorted_top(scores, count).double(),
            size(scores) + 8 * count,
            repeats,
        ),
    )


def copy_bandwidth() -> float:
    """Bytes read and written a second by a copy on the device."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    run = lambda: target.copy_(source)  # noqa: E731
    elapsed(run, 3)
    times = [elapsed(run, 3) for _ in range(5)]
    return 2 * COPY_BYTES / (statistics.median(times) / 1e3)


def all_results(quick: bool) -> Iterator[tuple[str, Result]]:
    repeats, last = (QUICK_REPEATS, 1) if quick else (REPEATS, None)
    for dtype in DTYPES:
        name = str(dtype)[6:]
        for d, s, length in SCANS[:last]:
            title = f"SelectiveScan, D = {d}, S = {s}, L = {length}, {name}"
            yield title, bench_scan(d, s, length, dtype, repeats)
        for c, h, w, gate in MOTIONS[:last]:
            title = f"MotionDeformConv{', gated' if gate else ''}, C = {c}, {w} x {h}, {name}"
            yield title, bench_motion(c, h, w, gate, dtype, repeats)
        for c, h, w in PRUNED[:last]:
            for coverage in COVERAGES:
                title = f"PrunedConv, C = {c}, {w} x {h}, {coverage:.0%} masked, {name}"
                yield title, bench_pruned(c, h, w, coverage, dtype, repeats)
        c, h, w, kernel = DEFORM
        title = f"DeformConv2d {kernel} x {kernel}, C = {c}, {w} x {h}, {name}"
        yield title, bench_deform(*DEFORM, dtype, repeats)
    yield from bench_others(repeats)


def built() -> None:
    """Compile the kernels for this GPU where they are missing.

    Raises:
        SystemExit: no nvcc, or it failed.
    """
    if cuda.available():
        return
    major, minor = torch.cuda.get_device_capability()
    print(f"compiling the kernels for compute capability {major}.{minor}")
    sources = Path(cuda.__file__).resolve().parents[1] / "csrc"
    try:
        cuda_compiler.build(sources, cuda.FILE.packaged, [10 * major + minor])
    except cpu_compiler.BuildError as error:
        raise SystemExit(f"bench/kernels.py: the kernels were not built: {error}") from error
    cuda._library.cache_clear()
    if not cuda.available():
        raise SystemExit("bench/kernels.py: the kernels that were built do not load")


def machine() -> dict[str, Any]:
    return {
        "gpu": torch.cuda.get_device_name(),
        "processors": torch.cuda.get_device_properties(0).multi_processor_count,
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"CUDA {torch.version.cuda}",
    }


def print_table(title: str, result: Result, bandwidth: float) -> None:
    print(f"\n{title}: ms, share of the copy bandwidth, error")
    for name, timing in result.candidates.items():
        share = result.bytes / (timing.median / 1e3) / bandwidth
        eager = "" if timing.graph else "  (launches included)"
        print(
            f"  {name:36} {timing.median:9.4f} {share:7.1%}   {timing.error:.0e}{eager}", flush=True
        )


def plot(results: dict[str, Result], path: Path) -> None:
    """Bars that show how many times faster the kernel is than each baseline."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{title}\n{name}", timing.median / result.candidates[KERNEL].median)
        for title, result in results.items()
        for name, timing in result.candidates.items()
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
    parser.add_argument("--quick", action="store_true", help="one size an op, fewer repeats")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench/kernels.py needs a CUDA GPU, and torch sees none", file=sys.stderr)
        raise SystemExit(2)
    built()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    bandwidth = copy_bandwidth()
    report: dict[str, Any] = machine() | {"copy_bytes_per_second": bandwidth}
    for key, value in report.items():
        print(f"{key}: {value}")
    results: dict[str, Result] = {}
    for title, result in all_results(options.quick):
        results[title] = result
        print_table(title, result, bandwidth)
        report["results"] = {name: asdict(done) for name, done in results.items()}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(results, options.plot)


if __name__ == "__main__":
    main()
