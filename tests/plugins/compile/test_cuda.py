"""Finding, refusing and building the library of the CUDA kernels."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from deblur_export.commands.plugins import build_plugins
from deblur_export.errors import DeblurExportError
from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.compile import cuda as cuda_compiler
from deblur_export.plugins.libraries import cuda
from tests import needs
from tests.plugins.emulation import CSRC

compiler = needs.compiler
needs_nvcc = needs.NVCC.mark(any(map(shutil.which, ("nvcc", cuda_compiler.USUAL_PLACE))))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[object], None]]:
    """use(path): forget the library that is loaded and let the ops look there."""

    def look_at(path: object) -> None:
        monkeypatch.setenv("DEBLUR_KERNELS_LIBRARY", str(path))
        cuda._library.cache_clear()

    yield look_at
    monkeypatch.undo()
    cuda._library.cache_clear()


@compiler
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('extern "C" int deblur_cuda_version() { return 999; }', "version 999"),
        ('extern "C" int other() { return 0; }', "deblur_cuda_version"),
        (None, "cannot open"),
    ],
    ids=["another-version", "another-library", "missing"],
)
def test_a_stale_library_is_left_out(
    source: str | None,
    reason: str,
    use: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    stale = tmp_path / cuda_compiler.LIBRARY
    if source is not None:
        code = tmp_path / "stale.cpp"
        code.write_text(source, encoding="utf-8")
        command = [*cpu_compiler.compiler(), "-shared", "-fPIC", str(code), "-o", str(stale)]
        subprocess.run(command, check=True)
    use(stale)
    assert not cuda.available()
    assert not cuda.available()
    (message,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert reason in message
    assert str(stale) in message
    assert "\n" not in message
    assert "plugins build" in message


def test_none_switches_it_off(use: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    use("none")
    assert not cuda.available()
    assert caplog.records == []


@pytest.mark.parametrize("wish", ["", "no-such-nvcc --flag"])
def test_no_nvcc(wish: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NVCC", wish)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cuda_compiler, "USUAL_PLACE", str(tmp_path / "nvcc"))
    with pytest.raises(cpu_compiler.BuildError, match="no CUDA compiler"):
        cuda_compiler.build(CSRC, tmp_path / cuda_compiler.LIBRARY)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_tells_what_it_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise cpu_compiler.BuildError("no CUDA compiler (nvcc not found)")

    monkeypatch.setattr(cpu_compiler, "build", lambda *_: "OpenVINO is not installed")
    monkeypatch.setattr(cuda_compiler, "build", refused)
    run = CliRunner().invoke
    done = run(build_plugins)
    assert done.exit_code == 0
    assert "native ops for OpenVINO not built: OpenVINO is not installed" in done.output
    assert "CUDA kernels not built: no CUDA compiler (nvcc not found)" in done.output
    required = run(build_plugins, "--cuda")
    assert isinstance(required.exception, DeblurExportError)
    assert "nvcc not found" in str(required.exception)
    monkeypatch.setattr(cuda_compiler, "build", lambda *_: None)
    alone = " ".join(run(build_plugins, "--cuda").output.split())
    assert cuda_compiler.LIBRARY in alone
    assert cpu_compiler.LIBRARY not in alone


@needs_nvcc
def test_architectures_of_this_nvcc() -> None:
    known = cuda_compiler.known_architectures(cuda_compiler.nvcc())
    assert known
    assert set(known) <= set(cuda_compiler.ARCHITECTURES)


@needs_nvcc
def test_a_compiler_error_leaves_the_old_library(tmp_path: Path) -> None:
    sources, target = tmp_path / "csrc", tmp_path / "library.so"
    (sources / "op").mkdir(parents=True)
    with pytest.raises(cpu_compiler.BuildError, match="no CUDA sources"):
        cuda_compiler.build(sources, target, [80])
    (sources / "op" / "kernel.cu").write_text("nonsense;", encoding="utf-8")
    target.write_text("old", encoding="utf-8")
    with pytest.raises(cpu_compiler.BuildError, match=r"nvcc: .*error"):
        cuda_compiler.build(sources, target, [80])
    assert target.read_text(encoding="utf-8") == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"csrc", "library.so"}


@pytest.mark.slow
@needs_nvcc
def test_build(use: Callable[..., None], tmp_path: Path) -> None:
    """Every kernel compiles, and the library answers without a GPU."""
    target = tmp_path / cuda_compiler.LIBRARY
    cuda_compiler.build(CSRC, target, [80])
    use(target)
    assert cuda.available()
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


# Compute capabilities of all NVIDIA GPUs since Pascal.
OLD = [(6, 0), (6, 1), (7, 0), (7, 2), (7, 5)]
SUPPORTED = [(8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)]


@pytest.mark.parametrize("capability", [*OLD, *SUPPORTED, (13, 0)])
@pytest.mark.parametrize("built_for", [cuda_compiler.ARCHITECTURES, (90,), (80, 86)])
def test_every_gpu_that_the_kernels_take_has_code_in_the_library(
    built_for: tuple[int, ...], capability: tuple[int, int]
) -> None:
    """CUDA's rule: machine code runs on its own major version, from its minor version on; PTX on
    every GPU that is not older."""
    flags = cuda_compiler.code_flags(built_for)
    machine = [divmod(int(flag.split("sm_")[1]), 10) for flag in flags if "code=sm_" in flag]
    ptx = [divmod(int(f.split("code=compute_")[1]), 10) for f in flags if "code=compute_" in f]
    has_code = any(code <= capability and code[0] == capability[0] for code in machine) or any(
        code <= capability for code in ptx
    )
    assert has_code == cuda.runs_on(capability) == (capability not in OLD)


def test_no_library_is_built_for_older_gpus() -> None:
    with pytest.raises(
        cpu_compiler.BuildError, match=r"no kernels for compute capability 7\.5, only"
    ):
        cuda_compiler.code_flags([75, 80])


def test_newer_gpus_have_machine_code_where_the_compiler_knows_them(tmp_path: Path) -> None:
    """Of CUDA 13.0, of 12.4 and of 10.2, which has nothing for the kernels."""
    compiler = tmp_path / "nvcc"

    def known(*names: int) -> tuple[int, ...]:
        listing = " ".join(f"sm_{name}" for name in names)
        compiler.write_text(f"#!/bin/sh\nprintf '%s\\n' {listing}\n", encoding="utf-8")
        compiler.chmod(0o755)
        return cuda_compiler.known_architectures([str(compiler)])

    newest = (75, 80, 86, 87, 88, 89, 90, 100, 110, 103, 120, 121)
    assert known(*newest) == (80, 86, 89, 90, 100, 103, 110, 120)
    assert known(50, 75, 80, 86, 87, 89, 90) == (80, 86, 89, 90)
    with pytest.raises(cpu_compiler.BuildError, match=r"does not know compute capability 8\.0"):
        known(35, 70, 75)


def test_an_older_gpu_is_told_once_and_pytorch_computes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    devices = {0: ("NVIDIA T4", (7, 5)), 1: ("NVIDIA B200", (10, 0))}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: devices[device.index][0])
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: devices[device.index][1]
    )
    cuda._runs_on.cache_clear()
    assert [cuda._runs_on(torch.device("cuda", index)) for index in (0, 1, 0)] == [
        False,
        True,
        False,
    ]
    cuda._runs_on.cache_clear()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        "CUDA kernels not used: NVIDIA T4 has compute capability 7.5, and they need 8.0 or newer; "
        "PyTorch's operators compute instead"
    )
