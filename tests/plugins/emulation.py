"""The CUDA kernels compiled for the processor, and each op's call of them, for the tests."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock
from torch import Tensor

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.libraries import cuda
from deblur_export.plugins.ops import OPS
from tests.plugins.harness import Case, Inputs, split_attributes

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


def call(case: Case, inputs: Inputs) -> Tensor:
    """The CUDA kernels' result, whatever the device of the inputs is."""
    tensors, attributes = split_attributes(case.op, inputs)
    return cuda.compute(OPS[case.op], *tensors.values(), **attributes)
