"""Checkpoints with damage and attacks made from a seed: each is refused in one line, or gives
finite weights of the network's shapes, those of every undamaged tensor unchanged. Nothing in them
runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint import load_model
from tests.fuzz.seeds import seeds
from tests.models.checkpoint_files import SMALL, random_state

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

STATE = random_state("nafnet", **SMALL)
LONGEST = 400  # characters of a message besides the path


class Runs:
    """Unpickling it by an ordinary reader makes a folder."""

    def __init__(self, call: Callable[..., Any], *arguments: object) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def archive(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def old(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def flat(content: object) -> bytes:
    assert isinstance(content, dict)
    return safetensors.torch.save({k: v.contiguous() for k, v in content["params"].items()})


WRITERS = (archive, old, flat)


def check(content: bytes, changed: set[str] | None, path: Path) -> bool:
    """Load it; whether it loaded. `changed`: keys that may have other values, None for all."""
    path.write_bytes(content)
    try:
        state = load_model("nafnet", None, str(path)).net.state_dict()
    except DeblurExportError as error:
        message = str(error).replace(str(path), "")
        assert message.isprintable()
        assert len(message) < 2 * LONGEST, message
        return False
    for key, expected in STATE.items():
        value = state[key]
        assert (value.shape, value.dtype) == (expected.shape, torch.float32)
        assert value.isfinite().all()
        if changed is not None and key not in changed:
            assert torch.equal(value, expected), key
    return True


def damaged(
    content: bytes, random_: random.Random, first: int = 0, last: int | None = None
) -> bytes:
    """Some bytes changed, removed, doubled or moved between two positions."""
    data = bytearray(content)
    last = len(data) if last is None else last
    for _ in range(random_.choice((1, 1, 2, 5, 20))):
        place = random_.randrange(first, last)
        length = random_.choice((1, 1, 2, 8, 100))
        match random_.randrange(5):
            case 0:
                data[place] ^= 1 << random_.randrange(8)
            case 1:
                data[place : place + length] = random_.randbytes(length)
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length]
            case _:
                other = random_.randrange(first, last)
                data[place : place + length] = data[other : other + length]
        last = max(first + 1, min(last, len(data)))
    return bytes(data)


@pytest.mark.parametrize("write", WRITERS)
def test_damaged_bytes(write: Callable[[object], bytes], tmp_path: Path) -> None:
    """Anywhere in the file. In an archive the checksums tell; elsewhere values may be others."""
    content = write({"params": STATE})
    for seed in seeds():
        changed: set[str] | None = set() if write is archive else None
        check(damaged(content, random.Random(seed)), changed, tmp_path / "net.pth")


def test_damaged_pickles(tmp_path: Path) -> None:
    """In the pickle of an archive whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(archive({"params": STATE}))) as whole:
        records = {info.filename: whole.read(info) for info in whole.infolist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    for seed in seeds():
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as rebuilt:
            for known, value in records.items():
                mutated = damaged(value, random.Random(seed)) if known == name else value
                rebuilt.writestr(known, mutated)
        check(file.getvalue(), None, tmp_path / "net.pth")


def test_damaged_headers(tmp_path: Path) -> None:
    """In the JSON of a safetensors file, field by field."""
    content = flat({"params": STATE})
    length = int.from_bytes(content[:8], "little")
    body = content[8 + length :]
    for seed in seeds():
        random_ = random.Random(seed)
        header = json.loads(content[8 : 8 + length])
        for _ in range(random_.choice((1, 2, 5))):
            key = random_.choice([key for key in header if key != "__metadata__"])
            entry = header[key]
            match random_.randrange(6):
                case 0:
                    entry["dtype"] = random_.choice(("F16", "I8", "BOOL", "F8_E4M3", "F64", "X"))
                case 1:
                    entry["shape"] = [random_.choice((0, 1, 4, 2**40, -1)) for _ in range(4)]
                case 2:
                    entry["data_offsets"] = sorted(random_.choices(range(len(body)), k=2))
                case 3:
                    header[f"{key}.{random_.randrange(9)}"] = header.pop(key)
                case 4:
                    header[key] = random_.choice((None, [], 3, "text", {}))
                    break
                case _:
                    header["__metadata__"] = {"training": random_.choice(("[" * 10**5, "{}", "3"))}
        text = json.dumps(header).encode()
        check(len(text).to_bytes(8, "little") + text + body, None, tmp_path / "net.safetensors")


def strange_values(
    random_: random.Random, folder: Path
) -> dict[str, Callable[[torch.Tensor], object]]:
    """What may stand in place of a tensor."""
    function = random_.choice((os.mkdir, Path.mkdir, os.makedirs))
    argument: object = folder if function is Path.mkdir else str(folder)
    return {
        "code": lambda value: Runs(function, argument),
        "eval": lambda value: Runs(eval, f"__import__('os').mkdir({str(folder)!r})"),
        "text": lambda value: "\x1b[2J" * random_.randrange(1, 1000),
        "none": lambda value: None,
        "number": lambda value: random_.choice((0, 1.5, 2**70, True)),
        "type": lambda value: value.to(
            random_.choice(
                (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.int64)
            )
        ),
        "halves": lambda value: value.half(),
        "sparse": lambda value: value.to_sparse(),
        "meta": lambda value: value.to("meta"),
        "quantized": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        "nested": lambda value: torch.nested.nested_tensor([value, value]),
        "strides": lambda value: torch.zeros(1).expand(value.shape),
        "terabytes": lambda value: torch.zeros(1).expand(2**20, 2**22),
        "not finite": lambda value: value * random_.choice((float("nan"), float("inf"))),
        "beyond": lambda value: value.double() * 1e200 + 1e200,
        "shape": lambda value: value.flatten(),
        "list": lambda value: [value, [value]],
        "cycle": lambda value: cycle(value),
    }


def cycle(value: object) -> object:
    content: dict[str, Any] = {"value": value}
    content["again"] = [content, {"a": content}]
    return content


def test_strange_contents(tmp_path: Path) -> None:
    """Values, keys and wrappers that are not what a checkpoint holds."""
    loaded = 0
    for seed in seeds():
        random_ = random.Random(seed)
        state: dict[Any, object] = dict(STATE)
        changed = set()
        for key in random_.sample(list(STATE), random_.choice((0, 1, 1, 3))):
            strange = strange_values(random_, tmp_path / "ran")
            state[key] = strange[random_.choice(list(strange))](STATE[key])
            changed.add(key)
        for _ in range(random_.randrange(3)):
            key = random_.choice(("\x1b]0;x\x07", "a" * 10**5, "module.x", "total_ops", "é\u202e"))
            state[key] = random_.choice((3, torch.tensor(3), torch.ones(2), {}))
        content = wrapped(state, random_)
        writer = random_.choice((archive, old, partial(pickle.dumps, protocol=seed % 6)))
        loaded += check(writer(content), changed, tmp_path / "net.pth")
        assert not (tmp_path / "ran").exists()
    assert loaded, "no content was sound: nothing was tested"


def wrapped(state: dict[Any, object], random_: random.Random) -> object:
    content: Any = state
    for _ in range(random_.randrange(4)):
        match random_.randrange(5):
            case 0:
                content = {random_.choice(("params", "state_dict", "\x1b", "a" * 10**4)): content}
            case 1:
                content = [content, 3]
            case 2 if isinstance(content, dict):
                prefix = random_.choice(("module", "net", "_orig_mod"))
                content = {f"{prefix}.{key}": value for key, value in content.items()}
            case 3:
                content = {"model": content, "other": {"intro.weight": torch.ones(3)}}
            case _:
                content = {
                    "model": content,
                    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
                }
                content["itself"] = content
    return content


def test_the_unchanged_files_load(tmp_path: Path) -> None:
    for write in WRITERS:
        assert check(write({"params": STATE}), set(), tmp_path / "net.pth")
