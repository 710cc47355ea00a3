"""The benchmark: right results, forced masks, honest rows for what fails, nothing left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import nn

from deblur_export import models
from deblur_export.artifact import Artifact
from deblur_export.commands import bench as bench_verb
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.cases import random_cases
from deblur_export.export.runtimes.open import open_session
from deblur_export.export.timing import coverage, plain, plots, rounds, subjects, tables
from deblur_export.export.timing.candidates import CANDIDATES, Row, plan
from deblur_export.export.timing.cases import Case
from deblur_export.export.timing.jobs import FORCED_CHOICE, OWN_CHOICE, Job
from deblur_export.export.timing.process import WorkerProcess
from deblur_export.export.timing.rounds import Budget, Figures
from deblur_export.models.checkpoint import load_model
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.loading import NetworkChoice
from deblur_export.models.random_weights import randomize
from deblur_export.temporary import PREFIX
from tests import needs
from tests.conftest import Exported
from tests.manifests import ANY_SIZE, make_manifest
from tests.test_cli import Invoke, assert_refused, invoke
from tests.tolerances import NETWORK_FLOAT32

__all__ = ["invoke"]  # a fixture

SMALL = (32, 48)
PLAIN_TOO = ("torch-eager", "ort-optimized", "ort-plain")
NAFNET = NetworkChoice("nafnet", "random:0", "tiny")


def saved(folder: Path, **arrays: np.ndarray[Any, Any]) -> dict[str, str]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: str(folder / f"{name}.npy") for name in arrays}


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_blob_mask_covers_what_is_asked(share: float) -> None:
    mask = coverage.blob_mask(40, 50, share)
    assert mask.shape == (1, 1, 40, 50)
    assert set(np.unique(mask)) <= {0, 1}
    assert mask.mean() == pytest.approx(share, abs=1e-6)
    assert (mask == coverage.blob_mask(40, 50, share)).all()
    dilated = coverage.dilated_coverage(mask)
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(mask), 3, 1, 1).mean().item()
    assert dilated == pytest.approx(expected, abs=1e-6)
    # Blobs and not noise: noise of 10 % dilates to 61 %.
    assert dilated < 2.5 * share + 1e-6


def test_forced_choice_is_the_same_in_a_file_and_in_pytorch(
    exported: Exported, tmp_path: Path
) -> None:
    artifact, target = exported("m2aenet"), tmp_path / "forced.onnx"
    net = load_model("m2aenet", "tiny", "random:0").net
    shape = coverage.mask_shape(net, "mask", *SMALL)
    assert shape == (4, 6)
    coverage.force_choice(artifact.path, "mask", target)
    session = open_session(target)
    forced = coverage.ForcedChoice(net, "mask")
    image = random_cases((1, 3, *SMALL))[0].image
    outputs = []
    for share in (0.0, 0.5, 1.0):
        mask = coverage.blob_mask(*shape, share)
        optimized = session.run({"image": image, FORCED_CHOICE: mask})
        with torch.no_grad():
            reference, own = forced(torch.from_numpy(image), torch.from_numpy(mask))
        np.testing.assert_allclose(optimized["restored"], reference.numpy(), **NETWORK_FLOAT32)
        # The predictor still runs, and sees the image alone.
        np.testing.assert_array_equal(optimized[OWN_CHOICE], own.numpy())
        outputs.append(optimized["restored"])
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3
    with pytest.raises(DeblurExportError, match="no value 'other'"):
        coverage.force_choice(artifact.path, "other", target)


def test_plain_export_is_standard_and_right(tmp_path: Path) -> None:
    """With one masked block: tracing takes long, and all are alike."""
    path, spec = tmp_path / "plain.onnx", models.get("m2aenet")
    masked = spec.build(**{**spec.variants["tiny"], "encoder_blocks": [1, 1, 1, 1]}).eval()
    randomize(masked, spec, 0)
    network: Any = SimpleNamespace(load=lambda: SimpleNamespace(net=masked, images=ImageSpec(1)))
    plain.export_plain(network, *SMALL, "mask", path)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    image = random_cases((1, 3, *SMALL))[0].image
    mask = coverage.blob_mask(4, 6, 0.5)
    optimized = open_session(path).run({"image": image, FORCED_CHOICE: mask})["restored"]
    with torch.no_grad():
        net = coverage.ForcedChoice(masked, "mask")
        reference, _ = net(torch.from_numpy(image), torch.from_numpy(mask))
    np.testing.assert_allclose(optimized, reference.numpy(), **NETWORK_FLOAT32)


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    class Undecided(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    network: Any = SimpleNamespace(
        load=lambda: SimpleNamespace(net=Undecided(), images=ImageSpec(1))
    )
    with pytest.raises(DeblurExportError, match=r"^cannot be exported: \S+") as failure:
        plain.export_plain(network, 4, 4, None, tmp_path / "plain.onnx")
    assert "\n" not in str(failure.value)


def test_budget() -> None:
    budget = Budget(seconds=10)
    assert not budget.is_spent(2, 120)  # at least three rounds, however slow
    assert budget.is_spent(3, 180)
    assert not budget.is_spent(3, 6)
    assert budget.is_spent(rounds.MAX_ROUNDS, 0.1)
    assert [Budget(1e9, 5).is_spent(n, 0) for n in (4, 5)] == [False, True]
    assert not Budget(0, 5).is_spent(4, 1e9)


def subject(title: str = "net:tiny", native: bool = False) -> subjects.Subject:
    return subjects.Subject(title, NAFNET, native, None)


def test_rows() -> None:
    def labels(*precisions: Any, native: bool = False) -> list[str]:
        chosen = [subject(native=native), subject("other:x")]
        return [row.label for row in plan(chosen, CANDIDATES.values(), precisions)]

    assert labels("fp32")[:5] == [
        "torch-eager",
        "torch-compile",
        "ort-plain",
        "ort-optimized portable",
        "ort-optimized ort",
    ]
    assert "torch-native" in labels("fp32", native=True)
    assert "other:x ort-plain" in labels("fp32")
    assert not [label for label in labels("bf16", native=True) if "ort-" in label]
    with pytest.raises(DeblurExportError, match="none of these candidates computes in bf16"):
        plan([subject()], [CANDIDATES["ort-optimized"]], ["fp32", "bf16"])
    assert tuple(CANDIDATES) == bench_verb.CANDIDATES


def test_table_compares_within_a_precision() -> None:
    def row(label: str, kind: str, precision: Any = "fp32") -> Row:
        return Row(label, subject(), CANDIDATES[kind], precision)

    def figures(*runs: float, reason: str = "") -> Figures:
        return Figures(
            runs=list(runs), reason=reason, first_run=1.0, load_seconds=1.0, max_difference=1e-6
        )

    rows = {
        row("eager", "torch-eager"): figures(0.4, 0.2, 0.3),
        row("plain", "ort-plain"): figures(0.1, 0.2, 0.3),
        row("optimized", "ort-optimized"): figures(0.1),
        row("gone", "openvino-optimized"): figures(0.01, reason="killed (out of memory?)"),
        row("half", "torch-eager", "bf16"): figures(0.05),
    }
    case = Case((32, 48), 0.1, 0.2, rows)
    full, half = tables.as_json([case], {}, {})["cases"]
    assert full["median_seconds"] == {"eager": 0.3, "plain": 0.2, "optimized": 0.1}
    assert (full["ratio_to"], half["ratio_to"]) == ("plain", "half")
    assert full["candidates"]["gone"]["reason"] == "killed (out of memory?)"
    assert full["candidates"]["eager"]["spread_seconds"]["min"] == 0.2
    drawn = tables.case_table(case, "fp32")
    ratio = next(column for column in drawn.columns if column.header == "ratio")
    assert list(ratio.cells) == ["1.50", "1.00", "0.50", "-"]
    assert "10 % forced (20.0 % dilated)" in str(drawn.title)
    assert tables.reasons(rows) == ["gone: killed (out of memory?)"]
    for width, count in ((160, 1), (80, 2)):
        console = Console(file=io.StringIO(), width=width)
        found = tables.case_tables(case, "fp32", console)
        assert len(found) == count
        for table in found:
            console.print(table)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert all(name in text for name in ("250..350", "max diff", "optimized", "1e-06"))
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
    json.dumps(full, allow_nan=False)


def test_wrong_results_are_seen() -> None:
    image = np.zeros((1, 3, 4, 4), np.float32)
    assert rounds.max_difference(image, image) == 0
    assert rounds.max_difference(image + np.float32(0.25), image) == 0.25
    assert rounds.max_difference(image * np.nan, image) == float("inf")
    assert rounds.max_difference(image[..., :2], image) == float("inf")


def test_a_killed_candidate_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    feed = saved(tmp_path, image=random_cases((1, 3, *SMALL))[0].image)
    job = asdict(Job("torch", "fp32", threads=1, network=NAFNET))
    figures = {"victim": Figures(), "other": Figures()}
    with WorkerProcess(1, tmp_path) as victim, WorkerProcess(1, tmp_path) as other:
        workers = {"victim": victim, "other": other}
        for worker in workers.values():
            assert "PyTorch" in worker.ask("load", job=job)["title"]
            assert worker.ask("first", feed=feed)["peak_bytes"] > 2**20
        with pytest.raises(DeblurExportError, match="FileNotFoundError"):
            other.ask("run", feed={"image": "missing.npy"})  # a failed request ends no worker
        victim.kill()
        rounds.run_rounds(
            workers, dict.fromkeys(workers, feed), figures, Budget(0, 2), lambda step: None
        )
    assert figures["victim"].reason == "killed (out of memory?)"
    assert figures["victim"].median is None
    assert len(figures["other"].runs) == 2
    assert other.process.returncode is not None


def test_worker_that_takes_too_long_or_ends_by_itself(tmp_path: Path) -> None:
    with (
        WorkerProcess(1, tmp_path) as worker,
        pytest.raises(DeblurExportError, match=r"^not done after 0 s$"),
    ):
        worker.ask("load", 0.05, job={})
    with (
        WorkerProcess(1, tmp_path) as worker,
        pytest.raises(DeblurExportError, match="AttributeError"),
    ):
        worker.ask("unknown")


@pytest.fixture(scope="module")
def arguments() -> tuple[str, ...]:
    named = ("bench", "--model", "nafnet", "--variant", "tiny", "--weights", "random:0")
    return (*named, "--size", "32x48", "--repeats", "3", "--threads", "1")


@pytest.mark.parametrize(
    ("candidates", "baseline"),
    [
        (("torch-eager", "ort-optimized"), "torch-eager"),
        pytest.param(PLAIN_TOO, "ort-plain", marks=pytest.mark.slow),
    ],
)
def test_bench_command(
    candidates: tuple[str, ...],
    baseline: str,
    exported: Exported,
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    file = exported("nafnet").path
    options = ("--size", "32x48", "--repeats", "3", "--threads", "1", "--profile")
    named = [word for candidate in candidates for word in ("--candidates", candidate)]
    result = command("bench", file, *options, *named, "--json", "bench.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    optimized = f"ort-optimized {file.name}"
    assert f"ratio to {baseline}" in result.stdout
    assert optimized in result.stdout
    assert f"{file}: deblur-export run uses " in result.stdout
    (case,) = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["cases"]
    assert case["size"] == [32, 48]
    assert set(case["median_seconds"]) == {*candidates, optimized} - {"ort-optimized"}
    for candidate in case["candidates"].values():
        assert len(candidate["runs"]) == 3
        assert candidate["max_difference"] <= NETWORK_FLOAT32["atol"]
        assert min(candidate["runs"]) <= candidate["median_seconds"] <= max(candidate["runs"])
        assert candidate["peak_bytes"] > 2**20
    profile = case["candidates"][optimized]["profile"]
    assert 0 < len(profile) <= 10
    assert "Conv" in profile


@pytest.mark.parametrize(
    ("sizes", "coverages", "panels"),
    [
        ([(32, 48), (64, 48)], [None], 1),
        ([(32, 48)], [0.0, 0.5], 1),
        ([(32, 48), (64, 48)], [0.0, 0.5], 2),
    ],
)
def test_plots(sizes: Any, coverages: Any, panels: int, tmp_path: Path) -> None:
    needs.MATPLOTLIB.load()
    rows = [Row("plain", subject(), CANDIDATES["ort-plain"], p) for p in ("fp32", "bf16")]
    rows.append(Row("failed", subject(), CANDIDATES["ort-optimized"], "fp32"))
    cases = [
        Case(size, share, share, {row: Figures(runs=[0.1 * size[0]]) for row in rows[:2]})
        for size in sizes
        for share in coverages
    ]
    for case in cases:
        case.figures[rows[2]] = Figures(reason="killed")
    drawn = plots._panels(cases)
    assert [len(row) for row in drawn] == [panels, panels]
    plots.draw(cases, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_fixed_size_files(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("nafnet", "tiny", "random:0")
    shapes = {
        "a": (1, 3, 32, 48),
        "b": (1, 3, 64, 64),
        "c": (2, 3, 32, 48),
        "d": ANY_SIZE,
    }

    def artifact(path: Path) -> Any:
        return Artifact(path, make_manifest(shapes[path.name]))

    monkeypatch.setattr(subjects, "read_artifact", artifact)
    monkeypatch.setattr(subjects, "reference_model", lambda *arguments: model)
    found, sizes = subjects.from_files([Path("a"), Path("d")], None)
    assert [one.files for one in found] == [(Path("a"), Path("d"))]
    assert sizes == [(32, 48)]
    for files, words in (("ab", "different sizes"), ("c", "2 images"), ("dd", "named twice")):
        with pytest.raises(DeblurExportError, match=words):
            subjects.from_files(map(Path, files), None)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_interruption_leaves_no_process(arguments: tuple[str, ...], tmp_path: Path) -> None:
    endless = (*arguments, "--candidates", "torch-eager", "--repeats", "1000000")
    process = subprocess.Popen(
        [sys.executable, "-m", "deblur_export", *endless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="locale",
        env=os.environ | {"TMPDIR": str(tmp_path)},
        # A shell's background jobs inherit an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(f"{PREFIX}*/output-0.npy")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = [
            int(pid)
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children")
            .read_text(encoding="utf-8")
            .split()
        ]
        assert children
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    assert error.strip().startswith("error: interrupted")
    assert error.strip().count("\n") == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not list(tmp_path.glob(f"{PREFIX}*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("FILE.onnx", "--model")),
        (("--model", "nafnet", "--size", "720"), ("--size 720", "720x1280")),
        (("--model", "nafnet", "--size", "0x5"), ("--size 0x5",)),
        (("--model", "nafnet", "--candidates", "tvm"), ("'tvm'", "ort-plain")),
        (("--model", "nafnet", "--weights", "random:0", "--coverage", "10"), ("nafnet:32", "mask")),
        (("--model", "nafnet", "--coverage", "101"), ("101",)),
        (("--model", "nafnte"), ("'nafnet'",)),
        (("--model", "nafnet", "--plot", "x.png"), ("two sizes or coverages",)),
        (("--model", "nafnet", "--plot", "x.jpg"), ("x.jpg", ".png")),
        (("--model", "nafnet", "--json", "no/x.json"), ("no", "no such folder")),
        (("missing.onnx",), ("missing.onnx", "no such file")),
        (("net.onnx", "--local"), ("--local",)),
    ],
)
def test_bad_input_is_refused_before_any_work(
    invoke: Invoke, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_refused(invoke("bench", *options), *words)


def test_plot_without_matplotlib(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    sizes = ("--size", "32x32", "--size", "64x64")
    result = invoke("bench", "--model", "nafnet", *sizes, "--plot", "x.png")
    assert_refused(result, "matplotlib", "deblur-export[plots]")


def test_runtime_that_is_missing_is_a_skipped_row(tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('not here')", encoding="utf-8")
    file = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
    )
    onnx.save(file, tmp_path / "x.onnx")
    job = asdict(Job("openvino", "fp32", threads=1, file=str(tmp_path / "x.onnx")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        worker = WorkerProcess(1, tmp_path)
    with worker, pytest.raises(DeblurExportError, match="OpenVINO is not installed"):
        worker.ask("load", job=job)
