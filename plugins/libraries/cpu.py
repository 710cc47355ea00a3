"""The native CPU kernels (csrc/, libdeblur_cpu.so) for torch tensors; optional.

The environment variable DEBLUR_CPU_LIBRARY says where else the library lies, or `none`;
DEBLUR_ISA = scalar, avx2, avx512 or avx512_bf16 asks for an instruction set.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deblur_export.plugins.compile.cpu import LIBRARY
from deblur_export.plugins.libraries.library_file import LibraryFile

# DEBLUR_CPU_VERSION of csrc/deblur_cpu.h: a library of another version is not used.
VERSION = 2
FILE = LibraryFile(LIBRARY, "DEBLUR_CPU_LIBRARY")

_P, _N, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_FUNCTIONS: dict[str, list[Any]] = {
    "deblur_selective_scan": [_I] + [_P] * 9 + [_N] * 4 + [_I, _P],
    "deblur_motion_deform_conv": [_I] + [_P] * 6 + [_N] * 4 + [_I, _P],
    "deblur_deform_conv2d": [_P] * 7 + [_N] * 6 + [_I, _P],
    "deblur_pruned_conv": [_I] + [_P] * 7 + [_N] * 4 + [_P],
}
_NO_MEMORY = 4
_FIRST = 0  # DEBLUR_FIRST: the layout of PyTorch
_off = False


class _Threads(ctypes.Structure):
    """deblur_threads without a runtime of its own."""

    _fields_ = (("count", ctypes.c_int64), ("run", ctypes.c_void_p), ("runtime", ctypes.c_void_p))


def _open(path: Path) -> ctypes.CDLL:
    """The library at `path`, its functions declared.

    Raises:
        OSError: it cannot be loaded, or has another version.
        AttributeError: it is another library.
    """
    library = ctypes.CDLL(str(path))
    library.deblur_version.restype = ctypes.c_int32
    version = library.deblur_version()
    if version != VERSION:
        raise OSError(f"it has version {version}, not {VERSION}")
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int32
    for name in ("deblur_instruction_set", "deblur_instruction_sets", "deblur_error_text"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


@functools.cache
def _library() -> ctypes.CDLL | None:
    return FILE.load(_open, "native kernels")


def available() -> bool:
    """Whether there is a library of this version."""
    return _library() is not None


def instruction_set() -> str | None:
    """The instruction set in use, such as avx512; None without a library."""
    library = _library()
    return None if library is None else str(library.deblur_instruction_set().decode())


def instruction_sets() -> tuple[str, ...]:
    """Those that the library holds; empty without one."""
    library = _library()
    return () if library is None else tuple(library.deblur_instruction_sets().decode().split())


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside, PyTorch computes every op by its definition: the reference to compare with."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def is_off() -> bool:
    """Whether it is inside `switched_off`, which holds for the kernels of every device."""
    return _off


def takes(*tensors: Tensor | None) -> bool:
    """Whether the native kernels can take these: dense and float32 on the CPU. Gradients are those
    of the definition, whoever computed the forward pass."""
    return (
        not _off
        and all(
            t is None
            or (t.dtype == torch.float32 and t.device.type == "cpu" and t.layout == torch.strided)
            for t in tensors
        )
        and available()
    )


def takes_index(index: Tensor) -> bool:
    return index.dtype == torch.int64 and index.device.type == "cpu"


def _call(name: str, *arguments: Tensor | int | None) -> None:
    """Call a C function with dense tensors, integers, and torch's number of threads at the end.

    Raises:
        MemoryError, ValueError: what the function answers.
    """
    library = _library()
    assert library is not None
    threads = _Threads(torch.get_num_threads(), None, None)
    plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    code = getattr(library, name)(*plain, ctypes.byref(threads))
    if code:
        message = f"{name}: {library.deblur_error_text(code).decode()}"
        raise MemoryError(message) if code == _NO_MEMORY else ValueError(message)


def selective_scan(u: Tensor, *others: Tensor | None, states: int, delta_softplus: int) -> Tensor:
    """SelectiveScan of tensors that `takes` accepts; `others` are delta, A, B, C, D, z and
    delta_bias, all of shapes that fit."""
    n, d, length = u.shape
    y = torch.empty(u.shape)
    inputs = [None if tensor is None else tensor.contiguous() for tensor in (u, *others)]
    sizes = (n, d, states, length, delta_softplus)
    _call("deblur_selective_scan", _FIRST, *inputs, y, *sizes)
    return y


def motion_deform_conv(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, gate: int = 0
) -> Tensor:
    """MotionDeformConv of tensors that `takes` accepts, of shapes that fit."""
    n, c, h, w = x.shape
    y = torch.empty(n, c >> gate, h, w)
    dense = [tensor.contiguous() for tensor in (x, offset, weight, bias)]
    _call("deblur_motion_deform_conv", _FIRST, *dense[:2], None, *dense[2:], y, *x.shape, gate)
    return y


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    index: Tensor | None = None,
) -> Tensor:
    """DeformConv2d, with `index` DeformConv2dAt, of tensors that `takes` accepts (but index, int64)
    and of shapes that fit."""
    n, outputs, kernel = x.shape[0], weight.shape[0], weight.shape[3]
    y = torch.empty(n, outputs, *offset.shape[2:])
    dense = [tensor.contiguous() for tensor in (x, offset, weight, bias, mask)]
    listed = None if index is None else index.contiguous()
    pixels = offset.shape[2:].numel()
    _call("deblur_deform_conv2d", *dense, listed, y, *x.shape, outputs, pixels, kernel)
    return y


def pruned_conv(x: Tensor, *others: Tensor) -> Tensor:
    """PrunedConv by gathered rows, at any coverage, of tensors that `takes` accepts; `others` are
    mask, weight1, bias1, weight2 and bias2, of shapes that fit."""
    y = torch.empty(x.shape)
    dense = [tensor.contiguous() for tensor in (x, *others)]
    _call("deblur_pruned_conv", _FIRST, *dense, y, *x.shape)
    return y
