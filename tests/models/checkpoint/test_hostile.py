"""Files that are no checkpoints or are made to do harm: each is refused in one line, soon, and no
code of theirs runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deblur_export.models.checkpoint import fingerprint, load_model
from tests.models.checkpoint_files import (
    random_state,
    refusal,
    save,
)

STATE = random_state("nafnet")
DAMAGED = "truncated, corrupt or not a checkpoint; copy or download it again"
UNSAFE = "which could run code; refused. Save only the state dict: torch.save(model.state_dict(), "


def load(path: Path) -> str:
    return load_model(None, None, str(path)).sha256


def test_missing_file_folder_and_empty_file(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "empty.pth").touch()
    for name, reason in (
        ("absent.pth", "no such file; weights are a checkpoint, demo or random:SEED"),
        ("folder.pth", "is a folder, not a file"),
        ("empty.pth", "the file is empty"),
    ):
        path = tmp_path / name
        assert refusal(lambda path=path: load(path)) == f"{path}: {reason}"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("fraction", [0.0001, 0.01, 0.5, 0.9999])
def test_truncated_file(suffix: str, fraction: float, tmp_path: Path) -> None:
    path = save(STATE, tmp_path / f"weights{suffix}")
    size = max(1, int(fraction * path.stat().st_size))
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(lambda: load(path)).startswith(f"{path}: {DAMAGED}")


@pytest.mark.parametrize("fraction", [0.001, 0.02, 0.5, 0.9999])
def test_truncated_old_format(fraction: float, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    assert refusal(lambda: load(path)) == f"{path}: {DAMAGED}"


def test_flipped_bit_in_a_record(tmp_path: Path) -> None:
    """The archive has a checksum for each record."""
    path = save(STATE, tmp_path / "net.pth")
    content = bytearray(path.read_bytes())
    content[content.index(STATE["intro.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    message = refusal(lambda: load(path))
    assert message == f"{path}: truncated or corrupt at intro.weight; copy or download it again"


def test_archive_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save(STATE, tmp_path / "net.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load(path) == fingerprint(STATE)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(suffix: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(random.Random(seed).randbytes(500))
    assert refusal(lambda: load(path)).startswith(f"{path}: {DAMAGED}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello, this is no checkpoint\n", DAMAGED),
        ("<!DOCTYPE html><html><body>Not Found</body></html>", DAMAGED),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            "a Git LFS pointer; fetch the file with git lfs pull",
        ),
        ("\n", DAMAGED),
    ],
)
def test_text_file(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text(text, encoding="utf-8")
    assert refusal(lambda: load(path)) == f"{path}: {reason}"


def test_container_under_the_other_suffix(tmp_path: Path) -> None:
    shutil.move(save(STATE, tmp_path / "a.pth"), tmp_path / "b.safetensors")
    shutil.move(save(STATE, tmp_path / "a.safetensors"), tmp_path / "b.pth")
    for name in ("b.safetensors", "b.pth"):
        assert load(tmp_path / name) == fingerprint(STATE)


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


WRITERS: dict[str, Callable[[object], bytes]] = {
    "zip": zipped,
    "old": torch_before_1_6,
    **{
        f"pickle {p}": lambda c, p=p: pickle.dumps(c, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("writer", WRITERS)
def test_code_in_a_pickle_does_not_run(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    content = {"params": {"intro.weight": Attack(tmp_path / "ran")}}
    path.write_bytes(WRITERS[writer](content))
    message = refusal(lambda: load(path))
    assert not (tmp_path / "ran").exists()
    assert (
        f"contains Python objects other than tensors ({os.mkdir.__module__}.mkdir), {UNSAFE}"
        in (message)
    )


class Call:
    """Unpickling it calls a function with arguments."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        Call(eval, "1"),
        Call(exec, "1"),
        Call(__import__, "os"),
        Call(setattr, nn.Module, "training", 1),
        Call(pickle.loads, b""),
        Call(torch.hub.load, "owner/repository", "net"),
        Call(torch.jit.load, "net.pt"),
        Call(nn.Conv2d, 1, 1, 1),
        nn.Conv2d(1, 1, 1),
        nn.init.zeros_,
    ],
)
def test_objects_that_are_no_tensors_are_named(call: object, tmp_path: Path) -> None:
    path = save({"state_dict": STATE, "more": call}, tmp_path / "net.pth")
    assert UNSAFE in refusal(lambda: load(path))


@pytest.mark.parametrize(
    "call",
    [
        Call(getattr, nn.Module, "training"),  # nn.Module is refused before it is reached
        Call(bytearray, 10**13),
        Call(torch.load, "net.pth"),
        Call(torch.Tensor, 10**13),
        Call(list, range(10**13)),
    ],
)
def test_what_stands_beside_weights_is_not_made(call: object, tmp_path: Path) -> None:
    path = save({"state_dict": STATE, "more": call}, tmp_path / "net.pth")
    if call.call[0] is getattr:  # type: ignore[attr-defined]
        assert UNSAFE in refusal(lambda: load(path))
    else:
        assert load(path) == fingerprint(STATE)


def test_a_pickle_cannot_change_what_reads_it(tmp_path: Path) -> None:
    """BUILD with attributes on the class itself, which pickle would set."""
    path = tmp_path / "net.pth"
    attack = b"\x80\x02cargparse\nNamespace\nN}U\x04pathU\x0ctorch.Tensors\x86b."
    path.write_bytes(attack)
    assert DAMAGED in refusal(lambda: load(path))
    assert load(save({"a": STATE}, path)) == fingerprint(STATE)


def test_whole_modules_and_torchscript_are_refused(tmp_path: Path) -> None:
    net = nn.Conv2d(1, 1, 1)
    torch.save(net, tmp_path / "module.pth")
    torch.jit.script(net).save(str(tmp_path / "script.pt"))
    for name, reason in (
        ("module.pth", f"other than tensors (torch.nn.modules.conv.Conv2d), {UNSAFE}"),
        ("script.pt", "a TorchScript archive, which is code; save the state dict of its module"),
    ):
        assert reason in refusal(lambda name=name: load(tmp_path / name))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"params": {}}, 3, "text", None])
def test_no_tensors(content: object, tmp_path: Path) -> None:
    path = save(content, tmp_path / "weights.pth")
    for name in (None, "nafnet"):
        message = refusal(lambda name=name: load_model(name, None, str(path)))
        assert message == f"{path}: no tensors inside; expected a state dict"


def test_one_tensor(tmp_path: Path) -> None:
    path = save(torch.ones(3), tmp_path / "weights.pth")
    assert "no tensors inside" in refusal(lambda: load(path))


# Bounds: what would never end, or fill the memory. Each is refused within seconds.


@pytest.fixture(autouse=True)
def soon() -> Any:
    start = time.process_time()
    yield
    assert time.process_time() - start < 10


def test_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["state_dict"] = content
    content["list"] = [content, [content]]
    path = save(content, tmp_path / "net.pth")
    assert "no tensors inside" in refusal(lambda: load(path))
    content["model"] = STATE
    assert load(save(content, path)) == fingerprint(STATE)


def test_wrappers_without_end(tmp_path: Path) -> None:
    deep: dict[str, Any] = dict(STATE)
    for _ in range(100_000):
        deep = {"w": deep}
    path = tmp_path / "net.pth"
    torch.save([1], path)  # an archive to put the pickle into
    content = b"\x80\x02" + b"}U\x01w" * 100_000 + b"N" + b"s" * 100_000 + b"."
    _replace_record(path, "data.pkl", content)
    assert "no tensors inside" in refusal(lambda: load(path))
    while deep.keys() == {"w"}:  # not by recursion
        deep = deep["w"]


def test_doubled_again_and_again(tmp_path: Path) -> None:
    """A small pickle of 2**60 paths."""
    content: dict[str, Any] = dict(STATE)
    for _ in range(60):
        content = {"a": content, "b": content}
    assert "no tensors inside" in refusal(lambda: load(save(content, tmp_path / "net.pth")))


def _replace_record(path: Path, name: str, content: bytes, how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", how) as archive:
        for known, value in records.items():
            archive.writestr(known, content if known.endswith(name) else value)


def test_compressed_archive(tmp_path: Path) -> None:
    path = save({"intro.weight": torch.ones(3)}, tmp_path / "net.pth")
    _replace_record(path, "data/0", bytes(100_000_000), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    message = refusal(lambda: load(path))
    assert message == f"{path}: a compressed archive; save it with torch.save"


@pytest.mark.parametrize("names", ["c", "\x93"])
def test_pickles_of_too_many_parts(names: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    name = {"c": b"cnumpy\nx\n0", "\x93": b"\x8c\x05numpy\x8c\x01x\x930"}[names]
    path.write_bytes(b"\x80\x04" + name * 7000 + b"N.")
    assert "holds more than 100,000 tensors or objects" in refusal(lambda: load(path))


def test_header_of_too_many_tensors(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{i}": entry for i in range(100_001)}).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "holds more than 100,000 tensors or objects" in refusal(lambda: load(path))


@pytest.mark.parametrize(
    "attack",
    [
        b"r\xff\xff\xff\x7f",  # an index of the memo that would need 16 GB
        b"X\xff\xff\xff\x7fabc",  # a text of 2 GB that is not there
        b"\x8e" + (2**40).to_bytes(8, "little") + b"abc",  # bytes of 1 TB
        b"\x8b\xff\xff\xff\x7fabc",  # a number of 2 GB
    ],
)
def test_lengths_that_are_not_there(attack: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"\x80\x04]" + attack + b".")
    assert DAMAGED in refusal(lambda: load(path))


@pytest.mark.parametrize("size", [(2**20, 2**22), (2**61, 3), (2**40, 0)])
@pytest.mark.parametrize("key", ["intro.weight", "encoders.0.0.conv1.weight"])
def test_strides_that_claim_terabytes(key: str, size: tuple[int, int], tmp_path: Path) -> None:
    claim = torch.zeros(1).as_strided(size, (0, 0))
    path = save({**STATE, key: claim}, tmp_path / "net.pth")
    for name in (None, "nafnet"):
        message = refusal(lambda name=name: load_model(name, None, str(path)))
        assert (
            f"1 tensors cannot be read as weights ({key}: {size[0]:,} x {size[1]:,} el" in message
        )


def test_many_weights_of_one_storage(tmp_path: Path) -> None:
    """Sizes that fit the network and its storage, but not together the file."""
    state = random_state("nafnet", **{**SMALL_WIDE, "width": 64})
    large = max(state.values(), key=Tensor.numel).clone()
    shared = {k: large.flatten()[: v.numel()].view(v.shape) for k, v in state.items()}
    message = refusal(lambda: load(save(shared, tmp_path / "net.pth")))
    assert message.endswith("its tensors claim more than 4 times the size of the file")


SMALL_WIDE: dict[str, Any] = {
    "encoder_blocks": [1, 1, 1, 40],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1, 1, 1],
}
