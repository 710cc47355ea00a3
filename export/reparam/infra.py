"""How an exact rewrite of a network is applied, measured and proved.

A pass rewrites a module in place and says what it changed and what it declined. `reparameterize`
runs passes on a float64 copy, compares each with the untouched network in float64, and rounds
the weights back once at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deblur_export.errors import CheckFailedError
from deblur_export.manifest import PassReport
from deblur_export.models.complexity import count_macs_of, count_parameters

# Largest |difference| in float64, as a share of the largest |output|: rounding of a few hundred
# layers; an algebraic mistake is ten orders of magnitude larger.
TOLERANCE = 1e-10


@dataclass
class Changes:
    """What a rewrite did: the modules it changed, and those it left alone with the reason."""

    changed: list[str] = field(default_factory=list)
    declined: list[tuple[str, str]] = field(default_factory=list)


class Rewrite(Protocol):
    """An exact rewrite of a module, in place."""

    def __call__(self, net: nn.Module, probe: tuple[Tensor, ...]) -> Changes: ...


def reparameterize(
    net: nn.Module,
    passes: Sequence[tuple[str, Rewrite]],
    probe: tuple[Tensor, ...],
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[nn.Module, list[PassReport]]:
    """Apply named passes one after the other to a copy of `net`.

    Args:
        net: the network, in eval mode; left untouched.
        passes: (name, rewrite) pairs.
        probe: positional inputs of the network; the proof of equality runs on them.
        progress: called with the name of the pass that begins.

    Returns:
        The rewritten copy in the dtype of `net`, and a report a pass.

    Raises:
        CheckFailedError: a pass changed the output by more than `TOLERANCE`.
        ValueError: the network is in training mode.
    """
    if net.training:
        raise ValueError("reparameterize: call net.eval() first; folds hold for inference only")
    dtype = next(net.parameters()).dtype
    probe = tuple(tensor.double() for tensor in probe)
    work = copy.deepcopy(net).double()
    with torch.no_grad():
        expected = work(*probe)
        reports: list[PassReport] = []
        size = _size(work, probe)
        for name, rewrite in passes:
            progress(name)
            reports.append(_apply(name, rewrite, work, probe, expected, size))
            size = (reports[-1].parameters_after, reports[-1].macs_after)
        _error("the passes together", work, probe, expected)
    return work.to(dtype).eval(), reports  # eval: rewrites may have added new modules


def _size(net: nn.Module, probe: tuple[Tensor, ...]) -> tuple[int, int]:
    """(parameters, multiply-adds)."""
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
    """The largest change of the output, relative to its range.

    Raises:
        CheckFailedError: it is above `TOLERANCE`.
    """
    error: float = ((net(*probe) - expected).abs().max() / expected.abs().max()).item()
    if not error <= TOLERANCE:  # also catches nan
        raise CheckFailedError(
            f"{what} changed the output by {error:.1e} of its range in float64 "
            f"(tolerance {TOLERANCE:.0e}); export with --no-reparam and report this network"
        )
    return error


def named_instances(net: nn.Module, kind: type) -> Iterator[tuple[str, Any]]:
    """The modules of one class, with their dotted names."""
    return ((name, module) for name, module in net.named_modules() if isinstance(module, kind))


def set_module(net: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule with the dotted `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, module)
