"""Finding, refusing and building the native library."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.ops.motion_deform_conv import motion_deform_conv
from tests import needs
from tests.plugins.cases.motion_deform_conv import deform

CSRC = Path(cpu.__file__).resolve().parents[1] / "csrc"

needed = needs.kernels
compiler = needs.compiler


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[object], None]]:
    """use(path): forget the library that is loaded and let the ops look there."""

    def look_at(path: object) -> None:
        monkeypatch.setenv("DEBLUR_CPU_LIBRARY", str(path))
        cpu._library.cache_clear()

    yield look_at
    monkeypatch.undo()
    cpu._library.cache_clear()


def result() -> torch.Tensor:
    return motion_deform_conv(**deform(1, 3, 4, 5, 1.0)(torch.float32))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_versions_agree() -> None:
    header = (CSRC / "deblur_cpu.h").read_text(encoding="utf-8")
    (version,) = re.findall(r"#define DEBLUR_CPU_VERSION (\d+)", header)
    assert int(version) == cpu.VERSION


def test_instruction_sets_agree() -> None:
    sets = cpu.instruction_sets()
    if cpu.available():
        # The last one, of x86 alone, is used by the kernels of the one before it.
        targets = tuple(cpu_compiler.TARGETS)
        assert sets == (targets if len(targets) == 1 else (*targets, "avx512_bf16"))
        assert cpu.instruction_set() in sets
    else:
        assert (sets, cpu.instruction_set()) == ((), None)


@pytest.mark.parametrize("content", ["", "not a library", None], ids=["empty", "text", "missing"])
def test_a_broken_library_is_left_out(
    content: str | None, use: Callable[..., None], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    expected = result()
    broken = tmp_path / cpu_compiler.LIBRARY
    if content is not None:
        broken.write_text(content, encoding="utf-8")
    use(broken)
    assert not cpu.available()
    for _ in range(2):
        torch.testing.assert_close(result(), expected, rtol=1e-5, atol=1e-5)
    (message,) = warnings(caplog)
    assert str(broken) in message
    assert "\n" not in message
    assert "plugins build" in message


@compiler
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('extern "C" int deblur_version() { return 999; }', "version 999"),
        ('extern "C" int other() { return 0; }', "deblur_version"),
        (f'extern "C" int deblur_version() {{ return {cpu.VERSION}; }}', "undefined symbol"),
    ],
    ids=["another-version", "another-library", "functions-missing"],
)
def test_a_stale_library_is_left_out(
    source: str,
    reason: str,
    use: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    code, stale = tmp_path / "stale.cpp", tmp_path / cpu_compiler.LIBRARY
    code.write_text(source, encoding="utf-8")
    command = [*cpu_compiler.compiler(), "-shared", "-fPIC", str(code), "-o", str(stale)]
    subprocess.run(command, check=True)
    use(stale)
    assert not cpu.available()
    assert result().isfinite().all()
    (message,) = warnings(caplog)
    assert reason in message
    assert "\n" not in message


def test_none_switches_it_off(use: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    use("none")
    assert not cpu.available()
    assert result().isfinite().all()
    assert warnings(caplog) == []


@needed
def test_another_place(use: Callable[..., None], tmp_path: Path) -> None:
    path = cpu.FILE.path()
    assert path is not None
    use(shutil.copy(path, tmp_path))
    assert cpu.available()


@pytest.mark.parametrize("wish", ["", "no-such-compiler --flag"])
def test_no_compiler(wish: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", wish)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(cpu_compiler.BuildError, match="no C\\+\\+ compiler"):
        cpu_compiler.build(CSRC, tmp_path / "library.so")
    assert list(tmp_path.iterdir()) == []


@compiler
def test_a_compiler_error_leaves_the_old_library(tmp_path: Path) -> None:
    sources, target = tmp_path / "csrc", tmp_path / "library.so"
    (sources / "op").mkdir(parents=True)
    (sources / "op" / "kernel.cpp").write_text("nonsense;", encoding="utf-8")
    target.write_text("old", encoding="utf-8")
    with pytest.raises(cpu_compiler.BuildError, match="nonsense"):
        cpu_compiler.build(sources, target)
    assert target.read_text(encoding="utf-8") == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"csrc", "library.so"}


@compiler
def test_nothing_to_build_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(cpu_compiler.BuildError, match="no sources"):
        cpu_compiler.build(tmp_path, tmp_path / "library.so")
    with pytest.raises(cpu_compiler.BuildError, match="cannot write"):
        cpu_compiler.build(CSRC, tmp_path / "missing" / "library.so")


@compiler
@pytest.mark.slow
def test_build(use: Callable[..., None], tmp_path: Path) -> None:
    """What `plugins build` and setup.py do."""
    target = tmp_path / cpu_compiler.LIBRARY
    cpu_compiler.build(CSRC, target)
    use(target)
    assert cpu.available()
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


@pytest.mark.slow
@needs.CMAKE.mark(shutil.which("cmake") is not None)
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_memory_and_threads_are_clean(sanitizers: str, tmp_path: Path) -> None:
    """tests/plugins/csrc/clean.cpp under the sanitizers, on every instruction set."""
    configure = ["cmake", "-S", CSRC, "-B", tmp_path, f"-DDEBLUR_SANITIZE={sanitizers}"]
    for command in (configure, ["cmake", "--build", tmp_path], [tmp_path / "deblur_clean"]):
        done = subprocess.run(
            list(map(str, command)), capture_output=True, encoding="locale", check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
