"""The native functions as the specifications of the ops say, for tests that call them directly."""

from __future__ import annotations

import ctypes
from typing import Any

from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.libraries.signatures import c_types, declared, declared_workspace
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.shapes import evaluate
from deblur_export.plugins.spec import OpSpec

SPECS = list(OPS.values())
# The functions by their names; DeformConv2d has that of DeformConv2dAt, without an index.
CPU = {s.cpu.name: (s, s.cpu) for s in SPECS if s.cpu}
CUDA = {s.cuda.name: (s, s.cuda) for s in SPECS if s.cuda}
# ctypes of the arguments of each function that tells the bytes of a workspace.
WORKSPACES: dict[str, list[Any]] = {
    f"{name}_workspace": c_types(spec, function, function.workspace)
    for name, (spec, function) in CUDA.items()
    if function.workspace
}
# Sizes that fit every op together.
SYMBOLS = {"N": 1, "C": 2, "H": 4, "W": 6, "D": 2, "S": 3, "L": 400, "O": 2, "P": 24, "ratio": 2}
POINTER = 64  # must not be followed

Arguments = dict[str, int | None]


def cpu_library() -> ctypes.CDLL:
    """The library in use, all of its functions declared."""
    library = cpu._library()
    assert library is not None
    for spec, function in CPU.values():
        declared(library, spec, function)
    return library


def declare_cuda(library: ctypes.CDLL) -> ctypes.CDLL:
    """A library of the CUDA kernels, all of its functions declared."""
    for spec, function in CUDA.values():
        declared(library, spec, function)
        if function.workspace:
            declared_workspace(library, spec, function)
    return library


def sizes_of(spec: OpSpec, function: NativeFunction) -> list[str]:
    """The arguments that are sizes or attributes."""
    numbers = {*spec.attributes, *spec.constants}
    names = function.arguments.split()
    return [name for name in names if function.size(name) is not None or name in numbers]


def is_attribute(function: NativeFunction, argument: str) -> bool:
    return function.size(argument) is None


def fitting(
    spec: OpSpec, function: NativeFunction, pointer: int | None = POINTER, **others: int | None
) -> Arguments:
    """The arguments of a call, by name, with sizes that fit; `others` replace some of them."""
    fixed: Arguments = {"workspace": POINTER, "workspace_bytes": 2**40}
    fixed |= {"layout": 0, "type": 0, "threads": None, "stream": None}
    for name, attribute in spec.attributes.items():
        fixed[name] = attribute.values[0] if attribute.values else SYMBOLS.get(name)
    fixed |= spec.constants | others

    def argument(name: str) -> int | None:
        size = function.size(name)
        if size is not None and name not in others:
            return evaluate(size, SYMBOLS)
        return fixed.get(name, pointer)

    return {name: argument(name) for name in function.arguments.split()}
