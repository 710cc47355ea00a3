"""Files that are no checkpoints or contain code: each is refused in one line, and no code runs."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from deblur_export.models.checkpoint import (
    SUFFIXES,
    load_state_dict,
)
from tests.models.checkpoint_files import (
    random_state,
    refusal,
    save,
)

DAMAGED = "truncated, corrupt or not a checkpoint; copy or download it again"
UNSAFE = "contains Python objects other than tensors, which could run code; refused. Save only"


def test_missing_file_folder_empty_file_and_suffix(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "empty.pth").touch()
    (tmp_path / "weights.onnx").touch()
    for name, reason in (
        ("absent.pth", "no such file"),
        ("folder.pth", "is a folder, not a file"),
        ("empty.pth", "the file is empty"),
        (
            "weights.onnx",
            "weights must be one of .pth, .pt, .ckpt, .safetensors, demo or random:SEED",
        ),
    ):
        path = tmp_path / name
        assert refusal(lambda path=path: load_state_dict(path)) == f"{path}: {reason}"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("fraction", [0.0001, 0.01, 0.5, 0.9999])
def test_truncated_file(suffix: str, fraction: float, tmp_path: Path) -> None:
    path = save(random_state("nafnet"), tmp_path / f"weights{suffix}")
    size = max(1, int(fraction * path.stat().st_size))
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(lambda: load_state_dict(path)).startswith(f"{path}: {DAMAGED}")


@pytest.mark.parametrize("fraction", [0.001, 0.02, 0.5, 0.9999])
def test_truncated_old_format(fraction: float, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(random_state("nafnet"), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    assert refusal(lambda: load_state_dict(path)) == f"{path}: {DAMAGED}"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(suffix: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(random.Random(seed).randbytes(500))
    assert refusal(lambda: load_state_dict(path)).startswith(f"{path}: {DAMAGED}")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "text",
    [
        "hello, this is no checkpoint\n",
        "<!DOCTYPE html><html><body>Not Found</body></html>",
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "\n",
    ],
)
def test_text_file(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_text(text, encoding="utf-8")
    assert refusal(lambda: load_state_dict(path)).startswith(f"{path}: {DAMAGED}")


def test_container_under_the_other_suffix(tmp_path: Path) -> None:
    state = random_state("nafnet")
    shutil.move(save(state, tmp_path / "a.pth"), tmp_path / "b.safetensors")
    shutil.move(save(state, tmp_path / "a.safetensors"), tmp_path / "b.pth")
    for name in ("b.safetensors", "b.pth"):
        assert DAMAGED in refusal(lambda name=name: load_state_dict(tmp_path / name))


class Attack:
    """Unpickling it creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def zipped(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def torch_before_1_6(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def test_the_attack_works_on_an_unguarded_reader(tmp_path: Path) -> None:
    attack = {"intro.weight": Attack(tmp_path / "ran")}
    torch.load(io.BytesIO(zipped(attack)), weights_only=False)
    (tmp_path / "ran").rmdir()
    pickle.loads(pickle.dumps(attack))
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("write", "names_the_danger"),
    [
        pytest.param(zipped, True, id="zip"),
        pytest.param(torch_before_1_6, True, id="old"),
        *(
            pytest.param(lambda c, p=p: pickle.dumps(c, p), 1 <= p <= 3, id=f"pickle-{p}")
            for p in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_code_in_a_pickle_does_not_run(
    write: Callable[[object], bytes], names_the_danger: bool, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(write({"params": {"intro.weight": Attack(tmp_path / "ran")}}))
    message = refusal(lambda: load_state_dict(path))
    assert not (tmp_path / "ran").exists()
    unpickled = suffix != ".safetensors"
    assert (UNSAFE if names_the_danger and unpickled else DAMAGED) in message


def test_whole_modules_and_torchscript_are_refused(tmp_path: Path) -> None:
    net = nn.Conv2d(1, 1, 1)
    torch.save(net, tmp_path / "module.pth")
    torch.jit.script(net).save(str(tmp_path / "script.pt"))
    for name in ("module.pth", "script.pt"):
        assert UNSAFE in refusal(lambda name=name: load_state_dict(tmp_path / name))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"params": {}}, torch.ones(3)])
def test_no_tensors(content: object, tmp_path: Path) -> None:
    path = save(content, tmp_path / "weights.pth")
    message = refusal(lambda: load_state_dict(path))
    assert message == f"{path}: no tensors inside; expected a state dict"
