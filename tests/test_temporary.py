"""What a killed process leaves is removed by the next; nothing that is in use or not ours is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deblur_export import temporary
from deblur_export.atomic import atomic_path
from deblur_export.temporary import remove_leftovers, temporary_file, temporary_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="this system has no flock")
# Prints what it holds and waits to be killed.
HOLDER = """
import pathlib, sys, time
from deblur_export.temporary import temporary_file, temporary_folder
here = pathlib.Path(sys.argv[1])
with temporary_file(here, ".pt") as file, temporary_folder(here) as folder:
    (folder / "part").write_bytes(b"half")
    print(file.name, folder.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def look_again() -> Iterator[None]:
    """Each test is like a new process, which has not looked into any folder."""
    temporary._remove_leftovers.cache_clear()
    yield
    temporary._remove_leftovers.cache_clear()


def leftover(folder: Path, suffix: str = ".pt", host: str = "") -> Path:
    path = folder / f"{temporary.PREFIX}{host or temporary._host()}-{'0123456789abcdef'}{suffix}"
    path.write_bytes(b"half")
    return path


@posix
def test_a_killed_process_and_the_next(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert holder.stdout is not None
    held = sorted(tmp_path / name for name in holder.stdout.readline().split())
    try:
        remove_leftovers(tmp_path)
        assert sorted(tmp_path.iterdir()) == held, "in use"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert sorted(tmp_path.iterdir()) == held, "a killed process cleans up nothing"
    temporary._remove_leftovers.cache_clear()
    with atomic_path(tmp_path / "state.pt") as path:
        path.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@posix
def test_nothing_else_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = leftover(tmp_path).name
    (tmp_path / name).unlink()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").write_bytes(b"")
    (tmp_path / name).symlink_to("target")
    os.mkfifo(tmp_path / f"{name}.fifo")
    for other in ("notes.pt", name[1:], name.replace("0123", "xyzw"), f"{name}-copy", ".tmp-12"):
        (tmp_path / other).write_bytes(b"")
    leftover(tmp_path, ".of_another_host", host="01234567")
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before

    leftover(tmp_path, ".of_another_user")
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    temporary._remove_leftovers.cache_clear()
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@posix
def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = leftover(tmp_path)

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with temporary_file(tmp_path, ".onnx") as file, temporary_folder(tmp_path) as folder:
        assert file.is_file() and folder.is_dir()
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_taken_before_it_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that looks for leftovers may be faster: then there is a second attempt."""
    made: list[Path] = []
    lock = temporary._lock

    def slow(path: Path) -> int | None:
        made.append(path)
        descriptor = lock(path)
        if len(made) == 1:
            path.unlink()
        return descriptor

    monkeypatch.setattr(temporary, "_lock", slow)
    with temporary_file(tmp_path, ".png") as path:
        assert len(made) == 2 and path == made[1] and path.exists()
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_work_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
