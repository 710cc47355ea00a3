"""Checkpoint files: what `torch.save` and safetensors write, recognised by their content. Names,
shapes and types are read; values only where they are asked for."""

from __future__ import annotations

import io
import sys
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint.pickles import (
    ForeignObjectError,
    Storage,
    TooLargeError,
    items_of,
    read_pickle,
)
from deblur_export.models.checkpoint.tensors import (
    Storages,
    Stored,
    itemsize_of,
    tensor_of,
    unreadable,
)
from deblur_export.shown import shown

ZIP, MAGIC = b"PK\x03\x04", 0x1950A86A20F9469CFC6C
LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it
MOST_TENSORS = 100_000
DEEPEST = 16  # wrappers around the weights
LONGEST_NAME = 1000  # characters
OF_SAFETENSORS = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
}


@dataclass(frozen=True)
class Entry:
    """A tensor under its dotted name, the keys of all wrappers around it included. `folder` is that
    of the wrapper that holds it: "params", or "" for the top of the file."""

    name: str
    folder: str
    tensor: Stored


@dataclass(frozen=True)
class Checkpoint:
    """A file with weights. `source` is its name in messages, `size` its bytes, `metadata` that of
    safetensors. Not every name is there once."""

    source: str
    size: int
    entries: tuple[Entry, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the names, shapes and types of all tensors in a file.

    Raises:
        DeblurExportError: the file is missing, empty, damaged or of another kind, holds objects
            that are no tensors, or more of anything than checkpoints have.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise DeblurExportError(f"{path}: {what}")
    try:
        with path.open("rb") as file:
            head = file.read(64)
        size = path.stat().st_size
    except OSError as error:
        raise DeblurExportError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise DeblurExportError(f"{path}: the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise DeblurExportError(f"{path}: a Git LFS pointer; fetch the file with git lfs pull")
    damaged = f"{path}: truncated, corrupt or not a checkpoint; copy or download it again"
    header = int.from_bytes(head[:8], "little")
    try:
        if head[8:9] == b"{" and header <= min(size, LARGEST_HEADER):
            return _safetensors(path, size)
        content, storages = _unpickled(path, head, size)
        return Checkpoint(str(path), size, tuple(_entries(path, content, storages)))
    except DeblurExportError:
        raise
    except ForeignObjectError as error:
        raise DeblurExportError(
            f"{path}: contains Python objects other than tensors ({shown(error, 80)}), which could "
            "run code; refused. Save only the state dict: torch.save(model.state_dict(), FILE)"
        ) from error
    except TooLargeError as error:
        raise _too_many(path) from error
    except SafetensorError as error:
        raise DeblurExportError(f"{damaged} ({shown(error)})") from error
    except Exception as error:  # damaged pickles and archives raise many types
        raise DeblurExportError(damaged) from error


def _too_many(path: Path) -> DeblurExportError:
    return DeblurExportError(
        f"{path}: holds more than {MOST_TENSORS:,} tensors or objects, and no network has so many; "
        "save only the state dict: torch.save(model.state_dict(), FILE)"
    )


def _safetensors(path: Path, size: int) -> Checkpoint:
    file: Any = safe_open(path, "pt")
    names = list(file.keys())
    if len(names) > MOST_TENSORS:
        raise _too_many(path)
    entries = []
    for name in names:
        part = file.get_slice(name)
        shape, kind = tuple(part.get_shape()), str(part.get_dtype())
        dtype = OF_SAFETENSORS.get(kind)
        if dtype is None or max(shape, default=0) > size:
            stored = unreadable(shape, kind, kind)
        else:
            stored = Stored(shape, dtype, "", partial(_copied, file, name))
        entries.append(Entry(name, "", stored))
    return Checkpoint(str(path), size, tuple(entries), dict(file.metadata() or {}))


def _copied(file: Any, name: str) -> Tensor:
    tensor: Tensor = file.get_tensor(name)
    return tensor.clone()


def _unpickled(path: Path, head: bytes, size: int) -> tuple[Any, Storages]:
    if head.startswith(ZIP):
        archive = _Archive(path, size)
        content, _ = read_pickle(io.BytesIO(archive.file.read(archive.info("data.pkl"))))
        return content, archive
    with path.open("rb") as file:
        content, _ = read_pickle(file)
        if content != MAGIC:  # not of torch.save
            return content, _Behind(path, {})
        for _ in ("version", "system"):
            read_pickle(file)
        content, storages = read_pickle(file)
        return content, _Behind(path, _places(file, storages, size))


class _Archive:
    """The ZIP archive of torch 1.6 and newer: data.pkl, and a record for each storage."""

    def __init__(self, path: Path, size: int) -> None:
        self.file = zipfile.ZipFile(path)
        infos = self.file.infolist()
        if len(infos) > MOST_TENSORS:
            raise _too_many(path)
        root = next(i.filename for i in infos if i.filename.endswith("data.pkl"))
        self.root = root.removesuffix("data.pkl")
        self.infos = {info.filename: info for info in infos}
        if f"{self.root}constants.pkl" in self.infos:
            raise DeblurExportError(
                f"{path}: a TorchScript archive, which is code; save the state dict of its module"
            )
        # torch.save does not compress; an archive that does may unpack to any size.
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise DeblurExportError(f"{path}: a compressed archive; save it with torch.save")
        if sum(info.file_size for info in infos) > size:
            raise zipfile.BadZipFile("records that overlap")
        for info in infos:
            if info.CRC == 0:  # torch.serialization.set_crc32_options(False)
                info.CRC = None  # type: ignore[assignment]
        order = self.infos.get(f"{self.root}byteorder")
        self.swapped = order is not None and self.file.read(order).decode() != sys.byteorder
        self.known: dict[str, bytearray] = {}

    def info(self, name: str) -> zipfile.ZipInfo:
        return self.infos[f"{self.root}{name}"]

    def size(self, key: str) -> int | None:
        found = self.infos.get(f"{self.root}data/{key}")
        return None if found is None else found.file_size

    def read(self, key: str, itemsize: int) -> bytearray:
        if key not in self.known:
            self.known[key] = bytearray(self.file.read(self.info(f"data/{key}")))
            if self.swapped:
                _swap(self.known[key], itemsize)
        return self.known[key]


class _Behind:
    """The storages that stand behind the pickles in files of torch before 1.6: position in the file
    and size in bytes by key."""

    def __init__(self, path: Path, places: Mapping[str, tuple[int, int]]) -> None:
        self.path = path
        self.places = places

    def size(self, key: str) -> int | None:
        return self.places[key][1] if key in self.places else None

    def read(self, key: str, itemsize: int) -> bytearray:
        start, size = self.places[key]
        with self.path.open("rb") as file:
            file.seek(start)
            return bytearray(file.read(size))


def _places(
    file: IO[bytes], storages: Mapping[str, Storage], size: int
) -> dict[str, tuple[int, int]]:
    """Where each storage stands: behind the list of all keys, its number of elements before it."""
    places = {}
    keys, _ = read_pickle(file)
    for key in map(str, keys):
        length = int.from_bytes(file.read(8), "little") * itemsize_of(storages[key])
        places[key] = (file.tell(), length)
        if file.seek(length, 1) > size:
            raise EOFError("the file ends within a storage")
    return places


def _swap(data: bytearray, itemsize: int) -> None:
    """Turn the order of the bytes of each element."""
    whole = bytes(data)
    for byte in range(itemsize):
        data[byte::itemsize] = whole[itemsize - 1 - byte :: itemsize]


def _entries(path: Path, content: object, storages: Storages) -> Iterator[Entry]:
    """All tensors of a pickle, those in the outermost wrappers first. A wrapper that stands in
    several places, or in itself, is visited once."""
    seen = {id(content)}
    waiting = deque([("", 0, content)])
    count = 0
    while waiting:
        folder, depth, container = waiting.popleft()
        for key, value in items_of(container):
            if not isinstance(key, (str, int)):
                continue
            name = f"{folder}.{key}" if folder else str(key)
            # A key of megabytes in front of each of many tensors would fill the memory.
            name = name if len(name) <= LONGEST_NAME else shown(name)
            tensor = tensor_of(value, storages)
            if tensor is not None:
                count += 1
                if count > MOST_TENSORS:
                    raise _too_many(path)
                yield Entry(name, folder, tensor)
            elif depth < DEEPEST and id(value) not in seen and items_of(value):
                seen.add(id(value))
                waiting.append((name, depth + 1, value))
