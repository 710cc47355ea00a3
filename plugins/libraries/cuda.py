"""The CUDA kernels (csrc/deblur_cuda.h, libdeblur_kernels.so) for torch tensors; optional.

`deblur-export plugins build` makes the library where there is nvcc. The environment variable
DEBLUR_KERNELS_LIBRARY says where else it lies, or `none`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deblur_export.plugins.compile.cuda import LIBRARY
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.libraries.library_file import LibraryFile

# DEBLUR_CUDA_VERSION of csrc/deblur_cuda.h: a library of another version is not used.
VERSION = 1
FILE = LibraryFile(LIBRARY, "DEBLUR_KERNELS_LIBRARY")
MOST_STATES = 64  # of SelectiveScan
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

_T, _P, _N = ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64
_ROOM = [_P, _N]  # a workspace and its bytes
_FUNCTIONS: dict[str, list[Any]] = {
    "deblur_cuda_selective_scan": [_T] + [_P] * 9 + [_N] * 4 + [_T, *_ROOM, _P],
    "deblur_cuda_motion_deform_conv": [_T] + [_P] * 5 + [_N] * 4 + [_T, *_ROOM, _P],
    "deblur_cuda_deform_conv2d": [_T] + [_P] * 7 + [_N] * 6 + [_T, *_ROOM, _P],
    "deblur_cuda_pruned_conv": [_T] + [_P] * 7 + [_N] * 4 + [*_ROOM, _P],
    "deblur_cuda_dynamic_filter": [_T] + [_P] * 3 + [_N] * 3 + [_T, _P],
    "deblur_cuda_local_mean": [_T] + [_P] * 2 + [_N] * 3 + [_T, *_ROOM, _P],
    "deblur_cuda_sampling_grid": [_P] * 2 + [_N] * 3 + [_P],
    "deblur_cuda_pixel_gather": [_T] + [_P] * 3 + [_N] * 5 + [_T, _P],
    "deblur_cuda_pixel_scatter": [_T] + [_P] * 4 + [_N] * 5 + [_P],
    "deblur_cuda_top_pixels": [_P] * 2 + [_N] * 3 + [_P],
}
_WORKSPACES: dict[str, list[Any]] = {
    "deblur_cuda_selective_scan_workspace": [_T] + [_N] * 4,
    "deblur_cuda_motion_deform_conv_workspace": [_T] + [_N] * 4 + [_T],
    "deblur_cuda_deform_conv2d_workspace": [_T] + [_N] * 5 + [_T],
    "deblur_cuda_pruned_conv_workspace": [_T] + [_N] * 4,
    "deblur_cuda_local_mean_workspace": [_N] * 3,
}


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`, its functions declared.

    Raises:
        OSError: it cannot be loaded, or has another version.
        AttributeError: it is another library.
    """
    library = ctypes.CDLL(str(path))
    library.deblur_cuda_version.restype = ctypes.c_int32
    version = library.deblur_cuda_version()
    if version != VERSION:
        raise OSError(f"it has version {version}, not {VERSION}")
    for names, result in ((_FUNCTIONS, ctypes.c_int32), (_WORKSPACES, ctypes.c_int64)):
        for name, arguments in names.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, result
    library.deblur_cuda_error_text.restype = ctypes.c_char_p
    return library


@functools.cache
def _library() -> ctypes.CDLL | None:
    return FILE.load(load, "CUDA kernels")


def available() -> bool:
    """Whether there is a library of this version; it says nothing about a GPU."""
    return _library() is not None


def takes(*tensors: Tensor | None) -> bool:
    """Whether the CUDA kernels can take these: dense on one GPU, the first in float32, float16 or
    bfloat16; indices are int64."""
    first = tensors[0]
    assert first is not None
    return (
        first.is_cuda
        and first.dtype in TYPES
        and not cpu.is_off()
        and all(
            t is None
            or (
                t.device == first.device
                and (t.dtype in TYPES or t.dtype == torch.int64)
                and t.layout == torch.strided
            )
            for t in tensors
        )
        and available()
    )


def _call(name: str, device: torch.device, *arguments: Any) -> None:
    """Queue the work of a C function on the current stream of `device`.

    Raises:
        RuntimeError: what the function answers.
    """
    library = _library()
    assert library is not None
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        stream = torch.cuda.current_stream().cuda_stream if device.type == "cuda" else None
        plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        code = getattr(library, name)(*plain, stream)
    if code:
        raise RuntimeError(f"{name}: {library.deblur_cuda_error_text(code).decode()}")


def _room(name: str, device: torch.device, *sizes: int) -> tuple[Tensor, int]:
    """A workspace for `name`; torch reuses its memory only behind the work queued on the stream."""
    library = _library()
    assert library is not None
    count = getattr(library, f"{name}_workspace")(*sizes)
    if count < 0:
        raise ValueError(f"{name}: no workspace for sizes {sizes}")
    return torch.empty(count, dtype=torch.uint8, device=device), count


def _like(x: Tensor, *others: Tensor) -> list[Tensor]:
    """Dense tensors of the type of x."""
    return [tensor.to(x.dtype).contiguous() for tensor in others]


def _float(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor,  # noqa: N803
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: int,
) -> Tensor:
    """SelectiveScan of tensors that `takes` accepts, of shapes that fit."""
    name, type_ = "deblur_cuda_selective_scan", TYPES[u.dtype]
    (values, enter, read), gate = _like(u, u, B, C), None if z is None else _like(u, z)[0]
    y = torch.empty_like(values)
    n, d, length = u.shape
    sizes = (n, d, A.shape[1], length)
    tensors = (values, _float(delta), _float(A), enter, read, _float(D), gate, _float(delta_bias))
    room = _room(name, u.device, type_, *sizes)
    _call(name, u.device, type_, *tensors, y, *sizes, delta_softplus, *room)
    return y


def motion_deform_conv(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, gate: int = 0
) -> Tensor:
    """MotionDeformConv of tensors that `takes` accepts, of shapes that fit."""
    name, type_ = "deblur_cuda_motion_deform_conv", TYPES[x.dtype]
    features, taps, added = _like(x, x, weight, bias)
    n, c, h, w = x.shape
    y = torch.empty(n, c // 2 if gate else c, h, w, dtype=x.dtype, device=x.device)
    room = _room(name, x.device, type_, *x.shape, gate)
    tensors = (features, _float(offset), taps, added, y)
    _call(name, x.device, type_, *tensors, *x.shape, gate, *room)
    return y


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    index: Tensor | None = None,
) -> Tensor:
    """DeformConv2d, with `index` (int64) DeformConv2dAt, of tensors that `takes` accepts and of
    shapes that fit."""
    name, type_ = "deblur_cuda_deform_conv2d", TYPES[x.dtype]
    features, matrices, added, factors = _like(x, x, weight, bias, mask)
    listed = None if index is None else index.contiguous()
    outputs, kernel, pixels = weight.shape[0], weight.shape[3], offset.shape[2:]
    y = torch.empty(x.shape[0], outputs, *pixels, dtype=x.dtype, device=x.device)
    room = _room(name, x.device, type_, *x.shape, outputs, kernel)
    tensors = (features, _float(offset), matrices, added, factors, listed, y)
    sizes = (*x.shape, outputs, pixels.numel(), kernel)
    _call(name, x.device, type_, *tensors, *sizes, *room)
    return y


def pruned_conv(x: Tensor, *others: Tensor) -> Tensor:
    """PrunedConv by gathered rows, at any coverage, of tensors that `takes` accepts; `others` are
    mask, weight1, bias1, weight2 and bias2, of shapes that fit."""
    name, type_ = "deblur_cuda_pruned_conv", TYPES[x.dtype]
    tensors = _like(x, x, *others)
    y = torch.empty_like(tensors[0])
    room = _room(name, x.device, type_, *x.shape)
    _call(name, x.device, type_, *tensors, y, *x.shape, *room)
    return y


def dynamic_filter(x: Tensor, weight: Tensor, kernel: int) -> Tensor:
    """DynamicFilter of tensors that `takes` accepts, of shapes that fit."""
    features, filters = _like(x, x, weight)
    y = torch.empty_like(features)
    n, c, h, w = x.shape
    sizes = (n * c, h, w, kernel)
    _call("deblur_cuda_dynamic_filter", x.device, TYPES[x.dtype], features, filters, y, *sizes)
    return y


def local_mean(x: Tensor, kernel: int) -> Tensor:
    """LocalMean of a tensor that `takes` accepts; kernel 3, 6, 12, ... 384."""
    name, features = "deblur_cuda_local_mean", x.contiguous()
    y = torch.empty_like(features)
    n, c, h, w = x.shape
    sizes = (n * c, h, w)
    room = _room(name, x.device, *sizes)
    _call(name, x.device, TYPES[x.dtype], features, y, *sizes, kernel, *room)
    return y


def sampling_grid(offset: Tensor) -> Tensor:
    """SamplingGrid: offset [N, 18, H, W] to grid [9, N, H, W, 2], float32."""
    field = offset.float().contiguous()
    n, _, h, w = offset.shape
    grid = torch.empty(9, n, h, w, 2, device=offset.device)
    _call("deblur_cuda_sampling_grid", offset.device, field, grid, n, h, w)
    return grid


def pixel_gather(x: Tensor, index: Tensor, kernel: int) -> Tensor:
    """PixelGather of tensors that `takes` accepts; index int64."""
    features, listed = x.contiguous(), index.contiguous()
    rows = torch.empty(len(index), kernel**2 * x.shape[1], dtype=x.dtype, device=x.device)
    sizes = (*x.shape, len(index), kernel)
    _call("deblur_cuda_pixel_gather", x.device, TYPES[x.dtype], features, listed, rows, *sizes)
    return rows


def pixel_scatter(base: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """PixelScatter of tensors that `takes` accepts; index int64."""
    before, new = _like(base, base, rows)
    y = torch.empty_like(before)
    tensors = (before, index.contiguous(), new, y)
    sizes = (*base.shape, len(index))
    _call("deblur_cuda_pixel_scatter", base.device, TYPES[base.dtype], *tensors, *sizes)
    return y


def top_pixels(scores: Tensor, count: int) -> Tensor:
    """TopPixels: the `count` best of scores [N, 1, H, W], ascending, [N, count] int64."""
    n, pixels = scores.shape[0], scores.shape[2:].numel()
    index = torch.empty(n, count, dtype=torch.int64, device=scores.device)
    _call("deblur_cuda_top_pixels", scores.device, _float(scores), index, n, pixels, count)
    return index
