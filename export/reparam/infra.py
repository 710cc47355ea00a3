"""Apply exact rewrites to a network, count what they save and verify that they are exact.

A pass rewrites a module in place and reports what it changed and what it declined.
`reparameterize` applies passes to a float64 copy, compares each result with the original network in
float64, and rounds the weights once at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deblur_export.errors import CheckFailedError
from deblur_export.export.float64 import NotFloat64Error, float64_copy, run_float64, widened
from deblur_export.manifest_blocks import PassReport
from deblur_export.models.complexity import count_macs_of, count_parameters

# Largest |difference| in float64 relative to the largest |output|. Rounding in a few hundred layers
# stays below it; an algebraic mistake is ten orders of magnitude larger.
TOLERANCE = 1e-10


@dataclass
class Changes:
    """The result of a rewrite: names of the modules that it changed, and of those that it declined
    with the reason."""

    changed: list[str] = field(default_factory=list)
    declined: list[tuple[str, str]] = field(default_factory=list)


class Rewrite(Protocol):
    """An exact rewrite of a module in place. `probe` are inputs with which it can be run."""

    def __call__(self, net: nn.Module, probe: tuple[Tensor, ...]) -> Changes: ...


def reparameterize(
    net: nn.Module,
    passes: Sequence[tuple[str, Rewrite]],
    probe: tuple[Tensor, ...],
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[nn.Module, list[PassReport]]:
    """Apply passes in order to a copy of `net` and verify each of them.

    Args:
        net: the network in eval mode; not changed.
        passes: names and rewrites.
        probe: positional inputs of the network, on which outputs are compared.
        progress: called with the name of each pass before it is applied.

    Returns:
        The rewritten copy in the dtype of `net`, and a report of each pass. A network that does not
        compute in float64 is returned as it is, with no report, since nothing could be proved;
        `progress` is told why.

    Raises:
        CheckFailedError: a pass changed the output by more than `TOLERANCE`.
        ValueError: the network is in training mode.
    """
    if net.training:
        raise ValueError("reparameterize: call net.eval() first; folds are valid in inference only")
    probe = tuple(tensor.double() for tensor in probe)
    work = float64_copy(net)
    try:
        expected, probe = _reference(work, probe)
    except NotFloat64Error as obstacle:
        progress(f"nothing: no fold can be proved exact for this network: {obstacle}")
        return net, []
    with torch.no_grad(), widened():
        reports: list[PassReport] = []
        size = _size(work, probe)
        for name, rewrite in passes:
            progress(name)
            reports.append(_apply(name, rewrite, work, probe, expected, size))
            size = (reports[-1].parameters_after, reports[-1].macs_after)
        _error("the passes together", work, probe, expected)
    return work.to(dtype_of(net)).eval(), reports  # eval: rewrites may have added new modules


def _reference(net: nn.Module, probe: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The output on the probe, and the probe; on its first image alone if the network takes no
    batches.

    Raises:
        NotFloat64Error: the network does not compute in float64.
    """
    try:
        return run_float64(net, *probe), probe
    except NotFloat64Error:
        first = tuple(tensor[:1] for tensor in probe)
        return run_float64(net, *first), first


def dtype_of(net: nn.Module) -> torch.dtype:
    """The floating-point type of a network's weights; float32 for one without any."""
    tensors = itertools.chain(net.parameters(), net.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def _size(net: nn.Module, probe: tuple[Tensor, ...]) -> tuple[int, int]:
    """Number of parameters and of multiply-adds."""
    return count_parameters(net), count_macs_of(net, probe).pure


def _apply(
    name: str,
    rewrite: Rewrite,
    net: nn.Module,
    probe: tuple[Tensor, ...],
    expected: Tensor,
    before: tuple[int, int],
) -> PassReport:
    changes = rewrite(net, probe)
    error, after = 0.0, before
    if changes.changed:
        error = _error(f"pass {name}", net, probe, expected)
        after = _size(net, probe)
    return PassReport(
        name=name,
        changed=tuple(changes.changed),
        declined=tuple(changes.declined),
        parameters_before=before[0],
        parameters_after=after[0],
        macs_before=before[1],
        macs_after=after[1],
        max_error=error,
    )


def _error(what: str, net: nn.Module, probe: tuple[Tensor, ...], expected: Tensor) -> float:
    """The largest change of the output relative to its largest absolute value.

    Raises:
        CheckFailedError: it is above `TOLERANCE`.
    """
    error: float = ((net(*probe) - expected).abs().max() / expected.abs().max()).item()
    if not error <= TOLERANCE:  # also catches NaN
        raise CheckFailedError(
            f"{what} changed the output by {error:.1e} of its range in float64 "
            f"(tolerance {TOLERANCE:.0e}); export with --no-reparam and report this network"
        )
    return error


def named_instances(net: nn.Module, kind: type) -> Iterator[tuple[str, Any]]:
    """All modules of a class with their dotted names."""
    return ((name, module) for name, module in net.named_modules() if isinstance(module, kind))


def set_module(net: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule with the dotted `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, module)
