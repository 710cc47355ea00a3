"""Run a network in float64, also where its code asks for float32.

`.float()` in a forward, as in most code that was written for mixed precision, would round a float64
run to float32, or end it: a convolution takes one type. So while a float64 copy runs, every float32
that Python code asks for is float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deblur_export.errors import DeblurExportError
from deblur_export.shown import shown

WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}
METHODS: dict[Any, Callable[..., Any]] = {
    Tensor.float: Tensor.double,
    Tensor.cfloat: Tensor.cdouble,  # type: ignore[attr-defined]
}
NAMES = {"torch.FloatTensor": torch.float64, "torch.ComplexFloatTensor": torch.complex128}


class _Widened(TorchFunctionMode):
    """Replaces float32 by float64 in the arguments of every function of torch."""

    def __torch_function__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        func = METHODS.get(func, func)
        wide = tuple(_wider(value) for value in args)
        return func(*wide, **{name: _wider(value) for name, value in (kwargs or {}).items()})


def _wider(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return WIDER.get(value, value)
    return NAMES.get(value, value) if isinstance(value, str) else value


@contextmanager
def widened() -> Iterator[None]:
    """A context in which the float32 that code asks for, by name or by default, is float64.

    The default type is one of the whole process, so other threads must not make tensors meanwhile.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():
            yield
    finally:
        torch.set_default_dtype(default)


def float64_copy(net: nn.Module) -> nn.Module:
    """A copy of a network with float64 parameters and buffers, to be run in `widened`."""

    def wide(tensor: Tensor) -> Tensor:
        return tensor.to(WIDER.get(tensor.dtype, tensor.dtype))

    work = copy.deepcopy(net).double()
    work._apply(wide)  # type: ignore[no-untyped-call]
    return work


class _Narrowing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first operator that makes a narrower number of a float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: str | None = None

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is None and _is_float64(args) and (narrow := _narrow(result)):
            self.found = f"{func} gives {narrow}".replace("torch.", "")
        return result


def _is_float64(values: object) -> bool:
    return any(isinstance(v, Tensor) and v.dtype == torch.float64 for v in tree_leaves(values))


def _narrow(values: object) -> torch.dtype | None:
    """The first floating-point type of these tensors that is narrower than float64."""
    kinds = (v.dtype for v in tree_leaves(values) if isinstance(v, Tensor))
    return next((k for k in kinds if k.is_floating_point and k.itemsize < 8), None)


class NotFloat64Error(DeblurExportError):
    """A network does not compute in float64; the message says why."""


def run_float64(net: nn.Module, *inputs: Tensor) -> Tensor:
    """Run a float64 copy of a network, without gradients, and make sure that nothing is rounded.

    Args:
        net: what `float64_copy` gave, in eval mode.
        inputs: its positional inputs, float64.

    Raises:
        NotFloat64Error: it fails, or makes a narrower number of a float64 somewhere.
    """
    noted = _Narrowing()
    try:
        with torch.no_grad(), widened(), noted:
            result: Tensor = net(*inputs)
    except Exception as error:  # the user's code: anything can be raised
        said = " ".join(str(error).split()) or type(error).__name__
        raise NotFloat64Error(f"it does not run in float64: {shown(said)}") from error
    if noted.found:
        raise NotFloat64Error(f"it rounds inside: {noted.found}")
    return result
