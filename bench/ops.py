"""Measure the custom ops on this machine's CPU, against what one would write without them.

    python bench/ops.py [--quick] [--json FILE]

MotionDeformConv is compared with nine grid samplings, the usual way to write it; PrunedConv with
its dense form and with unfold + 1x1, over the fraction of pixels that the mask keeps. `native` are
the kernels of plugins/csrc, if they are built, `torch` the references in torch. The runs of the
candidates are interleaved, so that a slow moment of the machine affects all of them.
"""

from __future__ import annotations

import deblur_export  # noqa: F401 - first: it turns the telemetry of the runtimes off

# isort: split
import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.export.reparam.unfold_masked_conv import merge
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.ops import pruned_conv as pruned_module
from deblur_export.plugins.ops.motion_deform_conv import SPEC as MOTION_DEFORM_CONV
from deblur_export.plugins.ops.motion_deform_conv import motion_deform_conv_reference
from deblur_export.plugins.ops.pruned_conv import _pruned_rows, pruned_conv_reference
from deblur_export.target import TARGETS, TargetName

TAPS = 9
MOTION_SIZES = ((128, 64), (512, 64), (512, 128))  # channels, height = width
PRUNED_SIZES = ((64, 64), (256, 128))
COVERAGES = (0.02, 0.05, 0.10, 0.20, 0.30, 0.40, 0.60, 1.0)
QUICK_COVERAGES = (0.05, 0.20, 0.60)
REPEATS, QUICK_REPEATS = 7, 3
SETTLE = 0.01  # seconds; until the worker threads of the candidate before sleep

RUNTIMES = ("ONNX Runtime", "torch", "native")  # how the names of the candidates begin

Call = Callable[[], np.ndarray]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of the repeats, and the largest error relative to the largest output."""

    median: float
    low: float
    high: float
    error: float


def measure(candidates: Mapping[str, Call], exact: np.ndarray, repeats: int) -> dict[str, Timing]:
    """Time the candidates in interleaved runs; each timed call follows an untimed one."""
    errors = {name: _error(call(), exact) for name, call in candidates.items()}
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, call in candidates.items():
            time.sleep(SETTLE)
            call()
            start = time.perf_counter()
            call()
            samples[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: Timing(statistics.median(times), min(times), max(times), errors[name])
        for name, times in samples.items()
    }


def _error(y: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(y - exact).max() / np.abs(exact).max())


def onnx_call(nodes: str, inputs: Arrays, weights: Arrays, target: TargetName) -> Call:
    """ONNX Runtime on a graph in ONNX text syntax that computes `y`; height and width dynamic."""
    signature = ", ".join(
        f"float[{array.shape[0]}, {array.shape[1]}, H, W] {name}" for name, array in inputs.items()
    )
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {TARGETS[target].opset}, "deblur": 1]>\n'
        f"bench ({signature}) => (float[N, C, H, W] y) {{\n{nodes}\n}}"
    )
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    attach_functions(model, target)
    options = ort.SessionOptions()
    # Worker threads that wait for the next call (20 ms) would take cores from the next candidate.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(["y"], inputs)[0]


def torch_call(function: Callable[..., Tensor], *inputs: Tensor, **attributes: int) -> Call:
    return lambda: function(*inputs, **attributes).detach().numpy()


def smooth_noise(channels: int, size: int) -> Tensor:
    """[1, channels, size, size], unit variance, smooth over an eighth of the image."""
    radius = size // 16
    noise = torch.randn(1, channels, size + 4 * radius, size + 4 * radius)
    for _ in range(2):
        noise = F.avg_pool2d(noise, 2 * radius + 1, stride=1)
    return noise / noise.std()


def bench_motion(channels: int, size: int, repeats: int) -> dict[str, Timing]:
    """MotionDeformConv [1, channels, size, size] with smooth motion of a few pixels."""
    x, offset = torch.randn(1, channels, size, size), 2 * smooth_noise(2 * TAPS, size)
    weight, bias = torch.randn(channels, 1, 3, 3), torch.randn(channels)
    tensors = (x, offset, weight, bias)
    inputs = {"x": x.numpy(), "offset": offset.numpy()}
    weights = {"weight": weight.numpy(), "bias": bias.numpy()}
    node = f"y = deblur.MotionDeformConv<group={channels}>(x, offset, weight, bias"
    corners, centres = _grid_weights(size, align_corners=1), _grid_weights(size, align_corners=0)
    candidates = {
        "ONNX Runtime: custom op, portable body": onnx_call(
            f"grid = deblur.SamplingGrid(offset)\n{node}, grid)", inputs, weights, "portable"
        ),
        "ONNX Runtime: custom op, ort body": onnx_call(f"{node})", inputs, weights, "ort"),
        "ONNX Runtime: 9 GridSample, align_corners=1 (baseline)": onnx_call(
            GRID_SAMPLE_NODES, inputs, {**_tap_weights(weight, bias), **corners}, "ort"
        ),
        "torch: definition": torch_call(motion_deform_conv_reference, *tensors),
        "torch: 9 grid_sample (baseline)": torch_call(
            nine_grid_samples, *tensors, *(torch.from_numpy(centres[k]) for k in ("scale", "base"))
        ),
    }
    if cpu.available():
        candidates["native: kernel"] = torch_call(cpu.compute, MOTION_DEFORM_CONV, *tensors)
    exact = motion_deform_conv_reference(*(tensor.double() for tensor in tensors)).numpy()
    return measure(candidates, exact, repeats)


def _grid_weights(size: int, align_corners: int) -> dict[str, np.ndarray]:
    """Factors from offsets in pixels to normalised coordinates, computed in advance."""
    span, shift = (size - 1, 0) if align_corners else (size, 1)
    own = np.arange(size)
    tap = np.arange(TAPS).reshape(TAPS, 1, 1)
    y, x = own[:, None] + tap // 3 - 1, own + tap % 3 - 1
    y, x = np.broadcast_arrays(y, x)
    base = (2 * np.stack([y, x], axis=1) + shift) / span - 1
    return {
        "scale": np.float32(2 / span).reshape(1),
        "base": base.reshape(1, 2 * TAPS, size, size).astype(np.float32),
    }


def nine_grid_samples(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, base: Tensor
) -> Tensor:
    """MotionDeformConv as nine calls of grid_sample."""
    channels, size = x.shape[1], x.shape[-1]
    grids = (offset * scale + base).view(TAPS, 2, size, size).flip(1).permute(0, 2, 3, 1)
    y = bias.view(1, channels, 1, 1)
    for tap in range(TAPS):
        sampled = F.grid_sample(x, grids[tap : tap + 1], align_corners=False)
        y = torch.addcmul(y, sampled, weight.view(channels, TAPS)[:, tap].view(1, channels, 1, 1))
    return y


def _tap_weights(weight: Tensor, bias: Tensor) -> dict[str, np.ndarray]:
    taps = weight.view(-1, TAPS)
    weights = {f"w{tap}": taps[:, tap].reshape(1, -1, 1, 1).numpy() for tap in range(TAPS)}
    return weights | {"y0": bias.view(1, -1, 1, 1).numpy()}


GRID_SAMPLE_NODES = "\n".join(
    [
        "size = Shape<start = 2, end = 4>(x)",
        f"pairs = Constant<value_ints = [{TAPS}, 2]>()",
        "shape = Concat<axis = 0>(pairs, size)",
        "scaled = Mul(offset, scale)",
        "moved = Add(scaled, base)",
        "field = Reshape(moved, shape)",
        "swap = Constant<value_ints = [1, 0]>()",
        "xy = Gather<axis = 1>(field, swap)",
        "grids = Transpose<perm = [0, 2, 3, 1]>(xy)",
        ", ".join(f"g{tap}" for tap in range(TAPS))
        + f" = Split<axis = 0, num_outputs = {TAPS}>(grids)",
        *(
            f"s{tap} = GridSample<align_corners = 1>(x, g{tap})\n"
            f"p{tap} = Mul(s{tap}, w{tap})\n"
            f"{'y' if tap == TAPS - 1 else f'y{tap + 1}'} = Add(y{tap}, p{tap})"
            for tap in range(TAPS)
        ),
    ]
)


def blob_mask(size: int, coverage: float) -> tuple[Tensor, float, float]:
    """One connected region [1, 1, size, size] whose dilation covers about `coverage`.

    Returns:
        The mask, and the exact fractions of pixels in it and in its 3x3 dilation.
    """
    axis = torch.linspace(-1, 1, size)
    bump = 0.3 * smooth_noise(1, size) - (axis[:, None] ** 2 + axis**2)
    order = bump.flatten().sort(descending=True).values
    low, high = 0, size * size
    while high - low > 1:  # bisect the number of masked pixels
        middle = (low + high) // 2
        mask = (bump >= order[middle - 1]).float()
        if F.max_pool2d(mask, 3, 1, 1).mean() <= coverage:
            low = middle
        else:
            high = middle
    mask = (bump >= order[max(low, 1) - 1]).float() if coverage < 1 else torch.ones_like(bump)
    return mask, mask.mean().item(), F.max_pool2d(mask, 3, 1, 1).mean().item()


UNFOLD_NODES = """
half = Constant<value_float = 0.5>()
masked = Greater(mask, half)
flat = Constant<value_ints = [-1]>()
flags = Reshape(masked, flat)
listed = NonZero(flags)
index = Reshape(listed, flat)
one = Constant<value_float = 1.0>()
shape = Shape(mask)
ones = Expand(one, shape)
marked = Concat<axis = 1>(x, ones)
rows = deblur.PixelGather<kernel = 3>(marked, index)
hidden = Gemm<transB = 1>(rows, weight, bias)
first, second = Split<axis = 1, num_outputs = 2>(hidden)
gated = Mul(first, second)
square = Mul(x, x)
y = deblur.PixelScatter(square, index, gated)
"""


@dataclass(frozen=True)
class PrunedResult:
    """One mask: shares of pixels in it and in its dilation, and the timings."""

    mask: float
    dilated: float
    timings: dict[str, Timing]


def bench_pruned(
    channels: int, size: int, coverages: Sequence[float], repeats: int
) -> list[PrunedResult]:
    """PrunedConv [1, channels, size, size] at several coverages."""
    wide = 2 * channels
    conv1, conv2 = nn.Conv2d(channels, wide, 1), nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
    parameters = [p.detach() for p in (*conv1.parameters(), *conv2.parameters())]
    unfolded = merge(conv1, conv2)
    names = ("weight1", "bias1", "weight2", "bias2")
    weights = {name: p.numpy() for name, p in zip(names, parameters, strict=True)}
    matrix = {"weight": unfolded.weight.detach().numpy(), "bias": unfolded.bias.detach().numpy()}
    node = f"y = deblur.PrunedConv<group={wide}>(x, mask, {', '.join(names)})"
    x = torch.randn(1, channels, size, size)
    results = []
    for coverage in coverages:
        mask, masked, dilated = blob_mask(size, coverage)
        inputs = {"x": x.numpy(), "mask": mask.numpy()}
        with mock.patch.object(pruned_module, "BREAK_EVEN", 2.0):
            rows = onnx_call(node, inputs, weights, "ort")
        candidates = {
            "ONNX Runtime: dense": onnx_call(node, inputs, weights, "portable"),
            "ONNX Runtime: ort body (If)": onnx_call(node, inputs, weights, "ort"),
            "ONNX Runtime: rows": rows,
            "ONNX Runtime: unfold": onnx_call(UNFOLD_NODES, inputs, matrix, "ort"),
            "torch: dense": torch_call(pruned_conv_reference, x, mask, *parameters),
            "torch: rows": torch_call(_pruned_rows, x, mask, *parameters),
            "torch: unfold": torch_call(unfolded, x, mask),
        }
        if cpu.available():
            candidates["native: rows"] = torch_call(
                cpu.compute, pruned_module.SPEC, x, mask, *parameters
            )
        exact = pruned_conv_reference(*(t.double() for t in (x, mask, *parameters))).numpy()
        results.append(PrunedResult(masked, dilated, measure(candidates, exact, repeats)))
    return results


def break_even(results: Sequence[PrunedResult], form: str, other: str) -> str:
    """Dilated coverage up to which `form` is faster than `other`, between measured points."""
    points = [
        (result.dilated, result.timings[form].median / result.timings[other].median - 1)
        for result in results
    ]
    if points[0][1] >= 0:
        return f"below {points[0][0]:.0%}"
    for (low, gain), (high, loss) in itertools.pairwise(points):
        if loss >= 0:
            return f"{low + (high - low) * gain / (gain - loss):.0%}"
    return f"{points[-1][0]:.0%} (all measured)"


def motion_table(channels: int, size: int, timings: Mapping[str, Timing]) -> Table:
    table = Table(title=f"MotionDeformConv, C = {channels}, {size} x {size}", title_justify="left")
    for heading in ("", "median ms", "min - max", "error"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, t in timings.items():
        table.add_row(name, f"{t.median:.1f}", f"{t.low:.1f} - {t.high:.1f}", f"{t.error:.1e}")
    return table


def pruned_table(channels: int, size: int, runtime: str, results: Sequence[PrunedResult]) -> Table:
    title = f"PrunedConv, C = {channels}, {size} x {size}, {runtime} (ms)"
    table = Table(title=title, title_justify="left", show_lines=True)
    names = [name for name in results[0].timings if name.startswith(runtime)]
    table.add_column("mask\ndilated", justify="right")
    for name in names:
        table.add_column(name.removeprefix(f"{runtime}: "), justify="right")
    for result in results:
        cells = (result.timings[name] for name in names)
        table.add_row(
            f"{result.mask:.1%}\n{result.dilated:.1%}",
            *(f"{t.median:.3g}\n{t.low:.3g}-{t.high:.3g}" for t in cells),
        )
    return table


def break_even_table(pruned: Mapping[str, Sequence[PrunedResult]]) -> Table:
    table = Table(title="Faster up to this fraction of pixels in the dilated mask")
    for heading in ("", "rows than dense", "unfold than dense", "unfold than rows"):
        table.add_column(heading)
    for size, results in pruned.items():
        for runtime in RUNTIMES[:2]:
            pairs = (("rows", "dense"), ("unfold", "dense"), ("unfold", "rows"))
            cells = (break_even(results, f"{runtime}: {a}", f"{runtime}: {b}") for a, b in pairs)
            table.add_row(f"{size}, {runtime}", *cells)
        if cpu.available():
            cell = break_even(results, "native: rows", "ONNX Runtime: dense")
            table.add_row(f"{size}, native, than ONNX Runtime's dense", cell, "", "")
    return table


def machine() -> dict[str, str]:
    """Processor, instruction sets that matter here, and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    fields = (
        dict(
            line.split("\t", 1)
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if "\t" in line
        )
        if cpuinfo.exists()
        else {}
    )
    flags = fields.get("flags", "").lstrip("\t: ").split()
    return {
        "cpu": fields.get("model name", "").lstrip("\t: ") or platform.processor(),
        "cores": str(os.cpu_count()),
        "flags": " ".join(f for f in flags if f.startswith(("avx512", "amx", "avx2"))),
        "load": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"onnxruntime {ort.__version__}, onnx {onnx.__version__}",
        "threads": f"torch and native {torch.get_num_threads()}, ONNX Runtime its default",
        "native": cpu.instruction_set() or "not built",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    options = parser.parse_args()
    repeats = QUICK_REPEATS if options.quick else REPEATS
    coverages = QUICK_COVERAGES if options.quick else COVERAGES
    last = 1 if options.quick else None
    console = Console()
    torch.manual_seed(0)
    about = machine()
    for key, value in about.items():
        console.print(f"{key}: {value}")
    motion, pruned = {}, {}
    with torch.no_grad():
        for channels, size in MOTION_SIZES[:last]:
            motion[f"C = {channels}, {size} x {size}"] = bench_motion(channels, size, repeats)
            console.print(motion_table(channels, size, list(motion.values())[-1]))
        for channels, size in PRUNED_SIZES[:last]:
            results = bench_pruned(channels, size, coverages, repeats)
            pruned[f"C = {channels}, {size} x {size}"] = results
            for runtime in RUNTIMES if cpu.available() else RUNTIMES[:2]:
                console.print(pruned_table(channels, size, runtime, results))
    console.print(break_even_table(pruned))
    if options.json:
        report = {
            "machine": about,
            "motion_deform_conv": {
                k: {n: asdict(t) for n, t in v.items()} for k, v in motion.items()
            },
            "pruned_conv": {k: [asdict(result) for result in v] for k, v in pruned.items()},
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
