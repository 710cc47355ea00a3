"""The CUDA kernels compiled for the processor, and each op's call of them, for the tests."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.libraries import cuda
from tests.plugins.harness import Case, Inputs

CSRC = Path(cuda.__file__).resolve().parents[1] / "csrc"
# Contracted sums would differ from compiler to compiler; jumps between fibers are not unwinding.
FLAGS = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
    "-DDEBLUR_EMULATION",
)
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")


def build(folder: Path, *flags: str) -> Path:
    """The library of csrc/emulation/ in `folder`; the first process that asks compiles it."""
    folder.mkdir(exist_ok=True)
    target = folder / "libdeblur_emulated.so"
    with FileLock(folder / "lock"):
        if not target.exists():
            compiler = [*cpu_compiler.compiler(), *FLAGS, *flags]
            sources = sorted(CSRC.glob("*/*.cu"))
            objects = [str(folder / f"{s.parent.name}-{s.stem}.o") for s in sources]
            with ThreadPoolExecutor(2) as pool:
                list(
                    pool.map(
                        lambda pair: cpu_compiler.run(
                            [*compiler, *WARNINGS, "-x", "c++", "-c", str(pair[0]), "-o", pair[1]]
                        ),
                        zip(sources, objects, strict=True),
                    )
                )
            partial = folder / "partial.so"
            cpu_compiler.run([*compiler, "-shared", *objects, "-o", str(partial)])
            partial.replace(target)
    return target


def backwards(library: ctypes.CDLL) -> ctypes.c_int32:
    """Its value says whether the threads of a block take turns from the last on."""
    return ctypes.c_int32.in_dll(library, "deblur_emulate_backwards")


def _scan(i: Inputs) -> Tensor:
    return cuda.selective_scan(**i)


def _motion(i: Inputs) -> Tensor:
    names = ("x", "offset", "weight", "bias")
    return cuda.motion_deform_conv(*(i[name] for name in names), i.get("gate", 0))


def _deform(i: Inputs) -> Tensor:
    return cuda.deform_conv2d(**{k: v for k, v in i.items() if k != "kernel"})


def _pruned(i: Inputs) -> Tensor:
    return cuda.pruned_conv(*(v for k, v in i.items() if k != "group"))


def _filter(i: Inputs) -> Tensor:
    return cuda.dynamic_filter(i["x"], i["weight"], round(i["weight"].shape[2] ** 0.5))


def _top(i: Inputs) -> Tensor:
    scores = i["scores"]
    return cuda.top_pixels(scores, scores.shape[2:].numel() // i["ratio"] ** 2)


_CALLS: dict[str, Callable[[Any], Tensor]] = {
    "SelectiveScan": _scan,
    "MotionDeformConv": _motion,
    "DeformConv2d": _deform,
    "DeformConv2dAt": _deform,
    "PrunedConv": _pruned,
    "DynamicFilter3": _filter,
    "DynamicFilter5": _filter,
    "LocalMean": lambda i: cuda.local_mean(**i),
    "PixelGather": lambda i: cuda.pixel_gather(**i),
    "PixelScatter": lambda i: cuda.pixel_scatter(**i),
    "TopPixels": _top,
}


def call(case: Case, inputs: Inputs) -> Tensor:
    """The CUDA kernels' result, whatever the device of the inputs is."""
    return _CALLS[case.op](inputs)
