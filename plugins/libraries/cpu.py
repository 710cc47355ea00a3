"""The CPU kernels (csrc/deblur_cpu.h, libdeblur_cpu.so) for torch tensors; optional.

`deblur-export plugins build` makes the library where there is a C++ compiler. The environment
variable DEBLUR_CPU_LIBRARY says where else it lies, or `none` for no library; DEBLUR_ISA = scalar,
avx2, avx512 or avx512_bf16 asks for an instruction set.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from deblur_export.plugins.compile.cpu import LIBRARY
from deblur_export.plugins.libraries.library_file import LibraryFile
from deblur_export.plugins.libraries.signatures import arguments_of, declared
from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.shapes import Values, evaluate_shape
from deblur_export.plugins.spec import OpSpec

# DEBLUR_CPU_VERSION of csrc/deblur_cpu.h: a library of another version is not used.
VERSION = 2
FILE = LibraryFile(LIBRARY, "DEBLUR_CPU_LIBRARY")

_NO_MEMORY = 4
_NCHW = 0  # DEBLUR_NCHW: the layout of PyTorch
_DTYPES = {"T": torch.float32, "tensor(float)": torch.float32, "tensor(int64)": torch.int64}
_off = False


class _Threads(ctypes.Structure):
    """The C struct deblur_threads; without `run`, the library makes its own threads."""

    _fields_ = (("count", ctypes.c_int64), ("run", ctypes.c_void_p), ("runtime", ctypes.c_void_p))


def _open(path: Path) -> ctypes.CDLL:
    """The library at `path`.

    Raises:
        OSError: it cannot be loaded, or has another version.
        AttributeError: it is another library.
    """
    library = ctypes.CDLL(str(path))
    library.deblur_version.restype = ctypes.c_int32
    version = library.deblur_version()
    if version != VERSION:
        raise OSError(f"it has version {version}, not {VERSION}")
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
    """The instruction sets that the library was compiled for; empty without a library."""
    library = _library()
    return () if library is None else tuple(library.deblur_instruction_sets().decode().split())


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside this context, PyTorch computes every op by its definition, on every device: the
    reference for comparisons. It holds for all threads of the process."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def is_off() -> bool:
    """Whether a `switched_off` context is active, which holds for the kernels of every device."""
    return _off


def supports(spec: OpSpec, *tensors: Tensor | None) -> bool:
    """Whether the CPU kernel can compute the op of these inputs: dense, on the CPU, float32 or
    (pixel indices) int64. Gradients are those of the definition, whoever computed the forward
    pass."""
    return (
        not _off
        and all(
            t is None
            or (
                t.dtype == _DTYPES[wanted.type]
                and t.device.type == "cpu"
                and t.layout == torch.strided
            )
            for t, wanted in zip(tensors, spec.inputs.values(), strict=False)
        )
        and available()
    )


def compute(spec: OpSpec, *tensors: Tensor | None, **attributes: int) -> Tensor:
    """The op by its CPU kernel.

    Args:
        spec: of an op that has a CPU function.
        tensors: inputs in the order of the op, for which `supports` holds; None for one that is
            left out.
        attributes: of the op; one that repeats a size may be left out.

    Returns:
        The output, NCHW and contiguous, float32 or (pixel indices) int64.

    Raises:
        ValueError: a shape or an attribute does not fit, or a pixel index lies outside the image.
        MemoryError: the kernel finds no memory for its workspace.
    """
    function = spec.cpu
    assert function is not None
    given = {
        name: None if tensor is None else tensor.contiguous()
        for name, tensor in zip(spec.inputs, tensors, strict=False)
    }
    values = spec.bind({k: t.shape for k, t in given.items() if t is not None}, attributes)
    output, tensor = spec.output
    y = torch.empty(evaluate_shape(tensor.shape, values), dtype=_DTYPES[tensor.type])
    _call(spec, function, values, {**given, output: y, "layout": _NCHW})
    return y


def _call(
    spec: OpSpec, function: NativeFunction, values: Values, given: Mapping[str, object]
) -> None:
    """Call a C function on as many threads as torch uses.

    Raises:
        MemoryError, ValueError: what the function answers.
    """
    library = _library()
    assert library is not None
    threads = _Threads(torch.get_num_threads(), None, None)
    arguments = arguments_of(spec, function, function.arguments, values, given)
    plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments[:-1]]
    code = declared(library, spec, function)(*plain, ctypes.byref(threads))
    if code:
        message = f"{function.name}: {library.deblur_error_text(code).decode()}"
        raise MemoryError(message) if code == _NO_MEMORY else ValueError(message)
