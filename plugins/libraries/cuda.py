"""The CUDA kernels (csrc/deblur_cuda.h, libdeblur_kernels.so) for torch tensors; optional.

`deblur-export plugins build` makes the library where there is nvcc. The environment variable
DEBLUR_KERNELS_LIBRARY says where else it lies, or `none` for no library.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from pathlib import Path

import torch
from torch import Tensor

from deblur_export.plugins.compile.cuda import LIBRARY, OLDEST
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.libraries.library_file import LibraryFile
from deblur_export.plugins.libraries.signatures import (
    arguments_of,
    declared,
    declared_workspace,
)
from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.shapes import evaluate_shape
from deblur_export.plugins.spec import OpSpec

# DEBLUR_CUDA_VERSION of csrc/deblur_cuda.h: a library of another version is not used.
VERSION = 1
FILE = LibraryFile(LIBRARY, "DEBLUR_KERNELS_LIBRARY")
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`.

    Raises:
        OSError: it cannot be loaded, or has another version.
        AttributeError: it is another library.
    """
    library = ctypes.CDLL(str(path))
    library.deblur_cuda_version.restype = ctypes.c_int32
    version = library.deblur_cuda_version()
    if version != VERSION:
        raise OSError(f"it has version {version}, not {VERSION}")
    library.deblur_cuda_error_text.restype = ctypes.c_char_p
    return library


@functools.cache
def _library() -> ctypes.CDLL | None:
    return FILE.load(load, "CUDA kernels")


def available() -> bool:
    """Whether there is a library of this version; it says nothing about a GPU."""
    return _library() is not None


def runs_on(capability: tuple[int, int]) -> bool:
    """Whether the library has code for a GPU of this compute capability (major, minor): machine
    code, or PTX that the driver compiles."""
    return capability >= divmod(OLDEST, 10)


@functools.cache
def _runs_on(device: torch.device) -> bool:
    """`runs_on` of a GPU; where it does not, a warning is logged, once for each GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    able = runs_on((major, minor))
    if not able:
        logging.getLogger("deblur_export").warning(
            "CUDA kernels not used: %s has compute capability %d.%d, and they need %s or newer; "
            "PyTorch's operators compute instead",
            torch.cuda.get_device_name(device),
            major,
            minor,
            OLDEST / 10,
        )
    return able


def supports(spec: OpSpec, *tensors: Tensor | None) -> bool:
    """Whether the CUDA kernel can compute the op of these inputs: dense, on one GPU that `runs_on`
    accepts, in float32, float16 or bfloat16 each; pixel indices are int64."""
    first = tensors[0]
    assert first is not None
    return (
        first.is_cuda
        and not cpu.is_off()
        and all(
            t is None
            or (
                t.device == first.device
                and (t.dtype == torch.int64 if wanted.type == "tensor(int64)" else t.dtype in TYPES)
                and t.layout == torch.strided
            )
            for t, wanted in zip(tensors, spec.inputs.values(), strict=False)
        )
        and available()
        and _runs_on(first.device)
    )


def compute(spec: OpSpec, *tensors: Tensor | None, **attributes: int) -> Tensor:
    """The op by its CUDA kernel, queued on the current stream.

    Args:
        spec: of an op that has a CUDA function.
        tensors: inputs in the order of the op, for which `supports` holds; None for one that is
            left out. Those of type "T" are converted to the dtype of the first of them, those that
            stay float32 to float32.
        attributes: of the op; one that repeats a size may be left out.

    Returns:
        The output, NCHW and contiguous, on the device of the first input: of the dtype of the
        first "T", or float32 or int64 as the specification says.

    Raises:
        ValueError: a shape or an attribute does not fit.
        RuntimeError: the kernel could not be queued.
    """
    function, first = spec.cuda, tensors[0]
    assert function is not None
    assert first is not None
    inputs = dict(zip(spec.inputs, tensors, strict=False))
    values = spec.bind({k: t.shape for k, t in inputs.items() if t is not None}, attributes)
    typed = [t.dtype for k, t in inputs.items() if t is not None and spec.inputs[k].type == "T"]
    low = typed[0] if typed else torch.float32
    dtypes = {"T": low, "tensor(float)": torch.float32, "tensor(int64)": torch.int64}
    given: dict[str, object] = {
        name: None if t is None else t.to(dtypes[spec.inputs[name].type]).contiguous()
        for name, t in inputs.items()
    }
    output, tensor = spec.output
    shape = evaluate_shape(tensor.shape, values)
    y = torch.empty(shape, dtype=dtypes[tensor.type], device=first.device)
    given |= {output: y, "type": TYPES[low]}
    if function.workspace:
        sizes = arguments_of(spec, function, function.workspace, values, given)
        memory = _workspace(spec, function, first.device, *sizes)
        given |= {"workspace": memory, "workspace_bytes": memory.numel()}
    arguments = arguments_of(spec, function, function.arguments, values, given)
    _call(spec, function, first.device, *arguments[:-1])
    return y


def _call(spec: OpSpec, function: NativeFunction, device: torch.device, *arguments: object) -> None:
    """Queue the work of a C function on the current stream of `device`.

    Raises:
        RuntimeError: what the function answers.
    """
    library = _library()
    assert library is not None
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        stream = torch.cuda.current_stream().cuda_stream if device.type == "cuda" else None
        plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        code = declared(library, spec, function)(*plain, stream)
    if code:
        raise RuntimeError(f"{function.name}: {library.deblur_cuda_error_text(code).decode()}")


def _workspace(
    spec: OpSpec, function: NativeFunction, device: torch.device, *sizes: object
) -> Tensor:
    """Memory for a call; torch reuses it only behind the work queued on the stream.

    Raises:
        ValueError: the function takes no such sizes.
    """
    library = _library()
    assert library is not None
    count = declared_workspace(library, spec, function)(*sizes)
    if count < 0:
        raise ValueError(f"{function.name}: no workspace for sizes {sizes}")
    return torch.empty(count, dtype=torch.uint8, device=device)
