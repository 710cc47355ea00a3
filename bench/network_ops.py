"""Measure SelectiveScan and local pooling (TLC) on this machine's CPU, against the usual forms.

    python bench/network_ops.py [--quick] [--json FILE]

SelectiveScan is compared with a plain ONNX Scan over all steps, local pooling with the official
differences of cumulative sums. `native` is the kernel of plugins/csrc, where it is built, `torch`
the reference in torch. The runs of the candidates are interleaved, so that a slow moment of the
machine affects all of them.
"""

from __future__ import annotations

import deblur_export  # noqa: F401 - first: it turns the telemetry of the runtimes off

# isort: split
import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
import torch.nn.functional as F
from ops import QUICK_REPEATS, REPEATS, Call, Timing, machine, measure
from rich.console import Console
from torch import Tensor

from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.plugins.function_body import DOMAIN, VERSION, FunctionBody
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.ops.local_mean import local_mean
from deblur_export.plugins.ops.selective_scan import SPEC as SELECTIVE_SCAN
from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference
from deblur_export.target import TARGETS, TargetName

SCANS = ((64, 32, 16_384), (64, 32, 65_536), (512, 32, 14_400))  # D, S, L
POOLS = ((64, 720, 1280, 384), (256, 180, 320, 96))  # channels, height, width, window
NAMES = ("u", "delta", "A", "B", "C", "D")


def session(graph: ir.Graph, target: TargetName | None, feed: dict[str, np.ndarray]) -> Call:
    model = ir.Model(graph, ir_version=10)
    if target is not None:
        attach_functions(model, target)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    proto = ir.to_proto(model).SerializeToString()
    run = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"]).run
    return lambda: run(None, feed)[0]


def graph_of(
    feed: dict[str, np.ndarray], opset: int, build: Callable[[FunctionBody], ir.Value]
) -> ir.Graph:
    """A graph with the inputs of `feed` and one output, both of dynamic size."""
    b = FunctionBody(tuple(feed), (), opset)
    for value, array in zip(b.inputs, feed.values(), strict=True):
        value.shape = ir.Shape([f"{value.name}{axis}" for axis in range(array.ndim)])
        value.type = ir.TensorType(ir.DataType.FLOAT)
    y = build(b)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": opset, DOMAIN: VERSION}
    return ir.Graph(b.inputs, [y], nodes=b.nodes, opset_imports=opsets, name="bench")


def body(op: str, feed: dict[str, np.ndarray], target: TargetName, **attributes: int) -> Call:
    def build(b: FunctionBody) -> ir.Value:
        b.Node(*b.inputs, **attributes)
        node = b.nodes[-1]
        node.domain, node.op_type = DOMAIN, op
        return node.outputs[0]

    return session(graph_of(feed, TARGETS[target].opset, build), target, feed)


def plain_scan(b: FunctionBody) -> ir.Value:
    """One ONNX Scan over the steps (batch 1), as an exporter without an op of its own writes it."""
    u, delta, A, B, C, D = b.inputs
    one = b.ints(1)

    def rows(x: ir.Value, axis: int) -> ir.Value:
        """[1, E, L] -> [L, E, 1] or [L, 1, E]."""
        return b.Unsqueeze(b.Transpose(b.Squeeze(x, b.ints(0)), perm=[1, 0]), b.ints(axis))

    step = b.branch("step", ("h", "dt", "x", "bt", "ct"))
    h, dt, x, bt, ct = step.inputs
    decayed = step.Mul(h, step.Exp(step.Mul(dt, A)))
    h = step.Add(decayed, step.Mul(x, bt))
    body = step.graph(h, step.Squeeze(step.MatMul(h, ct), one))
    sequences = rows(delta, 2), rows(b.Mul(delta, u), 2), rows(B, 1), rows(C, 2)
    zero = b.Sub(A, A)
    _, y = b.outputs("Scan", 2, zero, *sequences, body=body, num_scan_inputs=4)
    y = b.Unsqueeze(b.Transpose(y, perm=[1, 0]), b.ints(0))
    return b.Add(y, b.Mul(u, b.Unsqueeze(D, one)))


def bench_scan(d: int, s: int, length: int, repeats: int) -> dict[str, Timing]:
    u, delta = torch.randn(1, d, length), F.softplus(torch.randn(1, d, length) - 3)
    A = -torch.arange(1.0, s + 1).repeat(d, 1)
    B, C, D = torch.randn(1, s, length), torch.randn(1, s, length), torch.ones(d)
    tensors = (u, delta, A, B, C, D)
    feed = {name: tensor.numpy() for name, tensor in zip(NAMES, tensors, strict=True)}
    exact = selective_scan_reference(*(t.double() for t in tensors), delta_softplus=0).numpy()
    candidates: dict[str, Call] = {
        f"ONNX Runtime: custom op, {target} body": body(
            "SelectiveScan", feed, target, delta_softplus=0
        )
        for target in ("portable", "rtx")
    }
    candidates["ONNX Runtime: one Scan (baseline)"] = session(
        graph_of(feed, TARGETS["portable"].opset, plain_scan), None, feed
    )
    candidates["torch: definition"] = lambda: selective_scan_reference(
        *tensors, delta_softplus=0
    ).numpy()
    if cpu.available():
        candidates["native: kernel"] = lambda: cpu.compute(
            SELECTIVE_SCAN, *tensors, delta_softplus=0
        ).numpy()
    return measure(candidates, exact, repeats)


def cumulative_sums(x: Tensor, window: int) -> Tensor:
    """TLC in the official form."""
    height, width = x.shape[2:]
    down, across = min(window, height), min(window, width)
    table = F.pad(x.cumsum(3).cumsum(2), (1, 0, 1, 0))
    above, below = table[:, :, :-down], table[:, :, down:]
    total = below[..., across:] - below[..., :-across] - above[..., across:] + above[..., :-across]
    rows, columns = height - total.shape[2], width - total.shape[3]
    border = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(total / (down * across), border, mode="replicate")


def bench_pool(
    channels: int, height: int, width: int, window: int, repeats: int
) -> dict[str, Timing]:
    x = torch.randn(1, channels, height, width) + 1
    feed = {"x": x.numpy()}
    exact = cumulative_sums(x.double(), window).numpy()
    candidates: dict[str, Call] = {
        f"ONNX Runtime: custom op, {target} body": body(f"LocalMean{window}", feed, target)
        for target in ("portable", "ort")
    }
    candidates["torch: definition"] = lambda: local_mean(x, kernel=window).numpy()
    candidates["torch: cumulative sums (baseline)"] = lambda: cumulative_sums(x, window).numpy()
    return measure(candidates, exact, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    options = parser.parse_args()
    repeats, last = (QUICK_REPEATS, 1) if options.quick else (REPEATS, None)
    console = Console()
    torch.manual_seed(0)
    report: dict[str, object] = {"machine": machine()}
    for key, value in machine().items():
        console.print(f"{key}: {value}")
    results = {}
    for d, s, length in SCANS[:last]:
        results[f"SelectiveScan D = {d}, S = {s}, L = {length}"] = bench_scan(d, s, length, repeats)
    for pool in POOLS[:last]:
        channels, height, width, window = pool
        title = f"LocalMean{window}, C = {channels}, {width} x {height}"
        results[title] = bench_pool(*pool, repeats)
    for title, timings in results.items():
        console.print(f"\n{title}: median ms, error relative to the largest output")
        for name, timing in timings.items():
            console.print(f"  {name:40} {timing.median:9.1f}   {timing.error:.0e}")
        report[title] = {name: asdict(timing) for name, timing in timings.items()}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
