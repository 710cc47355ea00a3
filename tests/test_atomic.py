"""A file appears whole or not at all, and leaves nothing else behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.export.images.photo_encoding import Encoding
from deblur_export.export.images.photo_file import Photo
from deblur_export.export.images.photo_metadata import Metadata
from deblur_export.export.images.photo_writer import write_photo


def test_success_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    target.write_bytes(b"old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_any_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "can be written to"),
        (errno.EACCES, "may write to"),
        (errno.EFBIG, "limit"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_system_errors_say_what_to_do(tmp_path: Path, code: int, says: str) -> None:
    target = tmp_path / "a.bin"
    with pytest.raises(DeblurExportError, match=says) as caught, atomic_path(target):
        raise OSError(code, os.strerror(code))
    assert str(target) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for target, says in [
        (tmp_path / "file" / "a.bin", "not a folder"),
        (tmp_path / "none" / "a.bin", "create its folder"),
        (tmp_path / "folder", "not an ordinary file"),
    ]:
        with pytest.raises(DeblurExportError, match=says), atomic_path(target):
            pytest.fail("the body must not run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device file")
def test_a_device_is_not_replaced() -> None:
    with pytest.raises(DeblurExportError, match="ordinary"), atomic_path(Path("/dev/null")):
        pass
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_real_file_size_limit(tmp_path: Path) -> None:
    """The write itself fails half way, as on a full disk."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from deblur_export.errors import DeblurExportError\n"
        "from deblur_export.atomic import atomic_path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "        temporary.write_bytes(bytes(5000))\n"
        "except DeblurExportError as exc:\n"
        "    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(tmp_path / "a.bin")],
        capture_output=True,
        encoding="locale",
        check=True,
    )
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), DeblurExportError),
        (KeyboardInterrupt("stop"), KeyboardInterrupt),
    ],
)
def test_a_photo_half_written_is_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    def fail(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise error

    monkeypatch.setattr(Path, "write_bytes", fail)
    rgb = np.zeros((4, 4, 3), np.float32)
    photo = Photo(rgb, None, 8, False, Metadata(), Encoding(), "PNG", ())
    with pytest.raises(raised, match=r"free some space|stop"):
        write_photo(photo, rgb, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
