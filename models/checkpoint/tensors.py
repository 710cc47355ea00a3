"""Tensors that are in a file and not read yet: what they claim to be, held against the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from deblur_export.models.checkpoint.pickles import Node, Storage

# The types that weights and the integers beside them have, as torch spells them.
DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8"),
    )
}
OF_STORAGE = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "BoolStorage": "bool",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ByteStorage": "uint8",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "UntypedStorage": "uint8",
}
# Functions that rebuild something else than an ordinary tensor.
OTHERS = {
    "_rebuild_qtensor": "quantized",
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_meta_tensor_no_storage": "on the meta device, without values",
    "_rebuild_wrapper_subclass": "a tensor subclass",
    "_rebuild_device_tensor_from_numpy": "a NumPy array of another device",
    "_rebuild_xla_tensor": "a NumPy array of another device",
}
ORDINARY = ("torch.Tensor", "torch.nn.parameter.Parameter")
WRAPPED = (
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_device_tensor_from_cpu_tensor",
)
LARGEST_EMPTY = 2**16  # side of a tensor without elements
DEEPEST = 8  # parameters of parameters


@dataclass(frozen=True)
class Stored:
    """A tensor of a file.

    Attributes:
        shape: its shape.
        dtype: its type as torch spells it, "float32".
        unfit: why it cannot be read, "quantized" or "damaged"; empty if it can.
        read: reads it into memory of its own; raises `OSError`, `ValueError` or
            `zipfile.BadZipFile` for a damaged file.
    """

    shape: tuple[int, ...]
    dtype: str
    unfit: str
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (DTYPES[self.dtype].itemsize if not self.unfit else 0)


class Storages(Protocol):
    """The storages of a file by their key."""

    def size(self, key: str) -> int | None:
        """Bytes of a storage; None if there is none of that key."""

    def read(self, key: str, itemsize: int) -> bytearray:
        """Its bytes, in the order of this machine."""


def unreadable(shape: tuple[int, ...], dtype: str, why: str) -> Stored:
    def refuse() -> Tensor:
        raise ValueError(why)

    return Stored(shape, dtype, why, refuse)


def tensor_of(value: object, storages: Storages) -> Stored | None:
    """The tensor that a part of a pickle stands for; None if it stands for none."""
    if not isinstance(value, Node):
        return None
    path, args = value.path, value.args
    for _ in range(DEEPEST):
        if path == "torch._tensor._rebuild_from_type_v2":
            if len(args) < 3 or not _names_ordinary(args[1]):
                return unreadable((), "", "a tensor subclass")
            path, args = getattr(args[0], "path", ""), args[2]
        name = path.removeprefix("torch._utils.")
        if not path.startswith("torch._utils._rebuild") or not isinstance(args, tuple):
            return None
        if name in OTHERS:
            return unreadable((), "", OTHERS[name])
        if name not in WRAPPED:
            return _ordinary(name, args, storages)
        if not args or not isinstance(args[0], Node):
            return None
        path, args = args[0].path, args[0].args
    return None


def _names_ordinary(kind: object) -> bool:
    return getattr(kind, "path", "") in ORDINARY


def _ordinary(name: str, args: tuple[Any, ...], storages: Storages) -> Stored:
    try:
        storage, offset, size, stride = args[:4]
        shape = tuple(size.args[0] if isinstance(size, Node) else size)
        strides = tuple(stride)
        numbers = all(type(n) is int and n >= 0 for n in (*shape, *strides, offset))
    except (TypeError, ValueError, IndexError):
        return unreadable((), "", "damaged")
    if not numbers or len(shape) != len(strides):
        return unreadable((), "", "damaged")
    if not isinstance(storage, Storage):
        return unreadable(shape, "", "pickled without torch.save")
    dtype = OF_STORAGE.get(_last_part(storage[1]), "")
    metadata = args[6] if len(args) > 6 else None
    if name == "_rebuild_tensor_v3":
        dtype, metadata = _last_part(args[6] if len(args) > 6 else None), args[7:]
    if dtype not in DTYPES:
        return unreadable(shape, dtype, dtype or "of an unknown type")
    if metadata:
        return unreadable(shape, dtype, "lazily negated")
    return _view(storage, shape, strides, offset, dtype, storages)


def _view(
    storage: Storage,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    dtype: str,
    storages: Storages,
) -> Stored:
    key, itemsize = str(storage[2]), DTYPES[dtype].itemsize
    there = storages.size(key)
    count = math.prod(shape)
    if there is None or there % itemsize:
        return unreadable(shape, dtype, "damaged")
    # A view with strides of 0 may claim any size; no weight is larger than its storage.
    reach = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if count else -1
    largest = max(shape, default=0)
    if max(count, offset + reach + 1) * itemsize > there or largest > max(there, LARGEST_EMPTY):
        claim = " x ".join(f"{n:,}" for n in shape)
        return unreadable(shape, dtype, f"{claim} elements, in {there:,} bytes of the file")

    def read() -> Tensor:
        if not count:
            return torch.empty(shape, dtype=DTYPES[dtype])
        flat = torch.frombuffer(storages.read(key, itemsize), dtype=DTYPES[dtype])
        return flat.as_strided(shape, strides, offset).clone(memory_format=torch.contiguous_format)

    return Stored(shape, dtype, "", read)


def itemsize_of(storage: Storage) -> int:
    """Bytes of an element of a storage.

    Raises:
        KeyError: there is no storage of that type.
    """
    dtype: torch.dtype = getattr(torch, OF_STORAGE[_last_part(storage[1])])
    return dtype.itemsize


def _last_part(kind: object) -> str:
    return str(getattr(kind, "path", "")).rpartition(".")[2]
