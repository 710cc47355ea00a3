"""Calls of the native functions through ctypes, made from the specifications of the ops."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.shapes import Values, evaluate
from deblur_export.plugins.spec import OpSpec

# The layout of the feature maps of a CPU function, and what the tensors of type "T" of a CUDA
# function hold: codes of the headers.
_CODES = ("layout", "type")


def c_types(spec: OpSpec, function: NativeFunction, arguments: str) -> list[Any]:
    """The ctypes of arguments, whose names are separated by spaces: sizes are int64, codes,
    attributes and constants int32, everything else is a pointer."""
    small = {*_CODES, *spec.attributes, *spec.constants}

    def c_type(name: str) -> Any:
        if name == "workspace_bytes" or function.size(name) is not None:
            return ctypes.c_int64
        return ctypes.c_int32 if name in small else ctypes.c_void_p

    return [c_type(name) for name in arguments.split()]


def declared(library: ctypes.CDLL, spec: OpSpec, function: NativeFunction) -> Any:
    """The function of a library, its arguments and its result (an error code) declared."""
    return _declared(
        library, function.name, c_types(spec, function, function.arguments), ctypes.c_int32
    )


def declared_workspace(library: ctypes.CDLL, spec: OpSpec, function: NativeFunction) -> Any:
    """The function of a library that tells the bytes of a workspace, declared."""
    name = f"{function.name}_workspace"
    return _declared(library, name, c_types(spec, function, function.workspace), ctypes.c_int64)


def _declared(library: ctypes.CDLL, name: str, arguments: list[Any], result: Any) -> Any:
    function = getattr(library, name)
    if function.argtypes is None:
        # In this order: another thread that finds argtypes has the result as well.
        function.restype = result
        function.argtypes = arguments
    return function


def arguments_of(
    spec: OpSpec, function: NativeFunction, names: str, values: Values, given: Mapping[str, object]
) -> list[object]:
    """The arguments of a call in their order.

    Args:
        names: of the arguments, separated by spaces.
        values: of the symbols, as `OpSpec.bind` returns them.
        given: tensors, codes and the workspace, by name; what is not here and neither a size nor
            an attribute is None.
    """

    def argument(name: str) -> object:
        if (size := function.size(name)) is not None:
            return evaluate(size, values)
        if name in spec.attributes or name in spec.constants:
            return values[name]
        return given.get(name)

    return [argument(name) for name in names.split()]
