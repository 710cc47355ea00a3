"""bench/gpu/run_all.sh without a GPU: its plumbing, its refusals, and the tables of its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from deblur_export.plugins.libraries import cuda

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "gpu" / "run_all.sh"
KERNEL = "deblur_export"
HAS_GPU = torch.cuda.is_available()


def run_all(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/tables.py, as the scripts of its folder see it."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import tables

    return tables


def only(*steps: str) -> list[str]:
    return [word for step in steps for word in ("--only", step)]


def test_a_dry_run_of_what_starts_quickly(tmp_path: Path) -> None:
    ended = run_all("--dry-run", "--out", tmp_path, *only("kernels", "networks", "tables", "why"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"steps.txt", "kernels.json", "networks_cuda.json", "tables.md", "why.txt"}
    results = json.loads((tmp_path / "kernels.json").read_text(encoding="utf-8"))["results"]
    ops = {title.split(",")[0].split()[0].removesuffix("5").removesuffix("6") for title in results}
    assert ops == {
        *("SelectiveScan", "MotionDeformConv", "PrunedConv", "DeformConv2d"),
        *("LocalMean", "DynamicFilter", "TopPixels"),
    }
    assert all(result["candidates"][KERNEL]["error"] < 1e-2 for result in results.values())
    text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "not measured" in text and "m2aenet:tiny, float32, deblur_export" in text


@pytest.mark.slow
def test_the_whole_dry_run(tmp_path: Path) -> None:
    """With nvcc, this compiles the kernels for compute capability 9.0."""
    ended = run_all("--dry-run", "--out", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list(tmp_path.iterdir())) <= 8
    steps = (tmp_path / "steps.txt").read_text(encoding="utf-8")
    assert steps.count(": ok,") == 7 and "FAILED" not in steps
    assert "tests collected" in (tmp_path / "tests.txt").read_text(encoding="utf-8")


def test_a_step_that_fails_does_not_stop_the_next(tmp_path: Path) -> None:
    (tmp_path / "kernels.json").mkdir()  # nothing can be written there
    ended = run_all("--dry-run", "--out", tmp_path, *only("kernels", "why"))
    assert ended.returncode == 1
    assert ended.stderr.strip() == "error: failed: kernels"
    steps = (tmp_path / "steps.txt").read_text(encoding="utf-8")
    assert "kernels: FAILED" in steps and "why: ok" in steps
    assert "cannot be written" in steps


@pytest.mark.skipif(HAS_GPU, reason="there is a device")
def test_no_device(tmp_path: Path) -> None:
    ended = run_all("--out", tmp_path)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: no CUDA device that PyTorch sees")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run_all("--dry-run", "--out", tmp_path / "file" / "out")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "cannot be written" in ended.stderr


def timing(median: float) -> dict[str, float | bool]:
    return {"median": median, "minimum": median, "maximum": median, "error": 1e-6, "graph": True}


def invented(path: Path, results: dict[str, object], **about: object) -> None:
    """A file of results that nobody measured."""
    report = {"gpu": "invented", "versions": "none", "copy_bytes_per_second": 4e12, **about}
    path.write_text(json.dumps(report | {"results": results}), encoding="utf-8")


def test_tables_of_invented_kernels(bench: ModuleType, tmp_path: Path) -> None:
    import gpu_goals

    scan, motion = gpu_goals.SCAN, gpu_goals.MOTION.format("float32")
    slow = {gpu_goals.TRITON_SCAN: timing(7.5), KERNEL: timing(2.5)}
    results = {
        scan: {"bytes": 10**9, "candidates": slow, "failed": ""},
        motion: {"bytes": 0, "candidates": {}, "failed": "RuntimeError('illegal address')"},
    }
    invented(tmp_path / "kernels.json", results)
    lines = bench.kernels(tmp_path).splitlines()
    rows = [line for line in lines if line.startswith(f"| {scan}")]
    assert rows[0].endswith("| at most 1 ms | 2.500 ms | **no** |")
    assert rows[1].endswith(f"| 3.00 times {gpu_goals.TRITON_SCAN} | yes |")
    assert any(line.startswith(f"| {motion}") and "illegal address" in line for line in lines)
    assert "Failed: RuntimeError('illegal address')" in lines
    assert sum("not measured" in line for line in lines) == len(gpu_goals.GOALS) - 3


def test_tables_of_invented_networks(bench: ModuleType, tmp_path: Path) -> None:
    results = {
        f"{name}, float32": {
            "bytes": 0,
            "candidates": {KERNEL: timing(time)},
            "failed": "",
        }
        for name, time in (("m2aenet:base", 9.0), ("nafnet:32", 10.0))
    }
    results["algnet:32, float32"] = {"bytes": 0, "candidates": {}, "failed": "out of memory"}
    invented(tmp_path / "networks_cuda.json", results, size="1280 x 720")
    text = bench.gpu_networks(tmp_path)
    assert "| m2aenet:base, float32 | at most 1 times nafnet:32, float32 | 0.90 | yes |" in text
    assert "| m2aenet:base, bfloat16 autocast |" in text and "not measured" in text
    assert "out of memory" in text


def test_results_are_kept_beside_new_ones(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_timing

    path, about = tmp_path / "r.json", {"gpu": "a", "versions": "b"}
    one, two = gpu_timing.Result(1, {}), gpu_timing.Result(2, {}, "it failed")
    gpu_timing.add_results(path, about, {"one": one})
    gpu_timing.add_results(path, about, {"two": two})
    assert set(json.loads(path.read_text(encoding="utf-8"))["results"]) == {"one", "two"}
    gpu_timing.add_results(path, about | {"gpu": "another"}, {"two": two})
    assert set(json.loads(path.read_text(encoding="utf-8"))["results"]) == {"two"}


def test_a_failure_of_the_kernel_is_a_result(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_timing

    monkeypatch.setattr(gpu_timing, "DEVICE", "cpu")

    def broken() -> torch.Tensor:
        raise RuntimeError("an illegal address")

    exact = torch.ones(2, dtype=torch.float64)
    result = gpu_timing.measure({KERNEL: broken, "torch": lambda: torch.ones(2)}, exact, 1, 1)
    assert "illegal address" in result.failed and result.candidates == {}
    result = gpu_timing.measure({KERNEL: lambda: torch.ones(2), "torch": broken}, exact, 1, 1)
    assert not result.failed and set(result.candidates) == {KERNEL}


@pytest.fixture
def check(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[tuple[int, int]], None]:
    """check(capability): what run_all.py looks at before any work, on such a device."""
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "gpu"))
    import run_all

    def on(capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a device")
        run_all.check(run_all.Run(tmp_path, dry=False))

    return on


def test_an_old_device(
    check: Callable[[tuple[int, int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        check((7, 5))
    assert ended.value.code == 2
    expected = "error: a device has compute capability 7.5; the kernels need 8.0 or newer\n"
    assert capsys.readouterr().err == expected


def test_no_nvcc_and_no_kernels(
    check: Callable[[tuple[int, int]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda, "available", lambda: False)
    monkeypatch.setenv("NVCC", "no-such-compiler")
    with pytest.raises(SystemExit) as ended:
        check((9, 0))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: no CUDA compiler (no-such-compiler not found)")
    assert told.count("\n") == 1
    monkeypatch.setattr(cuda, "available", lambda: True)
    check((9, 0))  # kernels that were built before are enough
