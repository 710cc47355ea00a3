"""Timing on a CUDA GPU: interleaved candidates, each in a CUDA graph, and the file of results.

`DEVICE` is "cuda"; a dry run sets it to "cpu", where the same code runs on tiny inputs by the clock
of the processor. Its figures say nothing.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.compile import cuda as cuda_compiler
from deblur_export.plugins.libraries import cuda

Call = Callable[[], Tensor]
DEVICE = "cuda"
SAMPLE_MS = 2.0  # a sample repeats its candidate for about this long
KERNEL = "deblur_export"


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call, and the largest error relative to the largest output."""

    median: float
    minimum: float
    maximum: float
    error: float
    graph: bool  # whether it was captured; else launches are part of the time


@dataclass(frozen=True)
class Result:
    """One setting: the bytes it has to move, and what each candidate took. `failed` says why there
    are no times: the kernel failed."""

    bytes: int
    candidates: dict[str, Timing]
    failed: str = ""


def captured(call: Call) -> tuple[Callable[[], object], bool]:
    """The call as a graph, or itself where it cannot be captured."""
    if DEVICE == "cpu":
        return call, False
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
    if DEVICE == "cpu":
        begin = time.perf_counter()
        for _ in range(times):
            run()
        return 1e3 * (time.perf_counter() - begin) / times
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / times


def measure(candidates: dict[str, Call], exact: Tensor, moved: int, repeats: int) -> Result:
    """Time candidates interleaved. One that fails is named on stderr and left out; without the
    kernel there is no result but the reason."""
    runs, errors = {}, {}
    for name, call in candidates.items():
        try:
            y = call().double()
            errors[name] = float((y - exact).abs().max() / exact.abs().max())
            runs[name] = captured(call)
        except Exception as failure:  # whatever a baseline raises, it does not end the run
            print(f"{name} left out: {failure!r:.200}", file=sys.stderr)
            if name == KERNEL:
                return Result(moved, {}, f"{failure!r:.300}")
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
    """Bytes of the tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def require_gpu(script: str) -> None:
    """Exit with one line and code 2 where there is no device, and build the kernels for the one
    that is there where they are missing.

    Raises:
        SystemExit: no device, no nvcc, or the kernels do not build or load.
    """
    if DEVICE == "cpu":
        return
    if not torch.cuda.is_available():
        refuse(f"{script} needs a CUDA GPU, and PyTorch sees none")
    if cuda.available():
        return
    major, minor = torch.cuda.get_device_capability()
    print(f"compiling the kernels for compute capability {major}.{minor}")
    sources = Path(cuda.__file__).resolve().parents[1] / "csrc"
    try:
        cuda_compiler.build(sources, cuda.FILE.packaged, [10 * major + minor])
    except cpu_compiler.BuildError as error:
        refuse(f"{script}: the kernels were not built: {error}")
    cuda._library.cache_clear()
    if not cuda.available():
        refuse(f"{script}: the kernels that were built do not load")


def refuse(reason: str) -> None:
    """One line on stderr and exit code 2."""
    print(f"error: {reason}", file=sys.stderr)
    raise SystemExit(2)


def machine() -> dict[str, Any]:
    """What the results were measured on."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    if DEVICE == "cpu":
        return {"gpu": "none, a dry run", "processors": 0, "versions": versions}
    return {
        "gpu": torch.cuda.get_device_name(),
        "processors": torch.cuda.get_device_properties(0).multi_processor_count,
        "versions": f"{versions}, CUDA {torch.version.cuda}",
    }


def add_results(path: Path, about: Mapping[str, Any], results: Mapping[str, Result]) -> None:
    """Put results into a JSON file, beside those that it holds of the same machine and versions.

    Raises:
        DeblurExportError: it cannot be written.
    """
    kept: dict[str, Any] = {}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if all(before.get(key) == about[key] for key in ("gpu", "versions")):
            kept = before["results"]
    except (OSError, ValueError, KeyError):
        pass  # there is none yet, or another's
    report = {**about, "results": kept | {title: asdict(r) for title, r in results.items()}}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def check_writable(path: Path) -> None:
    """Before any work: exit with one line and code 2 where a result could not be written.

    Raises:
        SystemExit: its folder is not there or cannot be written to.
    """
    probe = path.with_name(f"{path.name}.probe")
    try:
        with atomic_path(probe):
            pass
        probe.unlink()
    except (DeblurExportError, OSError) as error:
        refuse(f"{path} cannot be written: {error}")
