"""Which network of this package a checkpoint is of, and of which variant."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint.files import Checkpoint
from deblur_export.models.checkpoint.fit import Wanted, check_readable, misfit, some
from deblur_export.models.checkpoint.sets import WeightSet, sets_with
from deblur_export.models.spec import ModelSpec

# What a network's constructor and `hyperparameters` raise for shapes that fit none.
UNFIT = (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, AssertionError)


@dataclass(frozen=True)
class Recognised:
    """A network, the arguments of its constructor, and the network on the meta device: sizes that a
    file implies are not allocated before they fit."""

    spec: ModelSpec
    arguments: Mapping[str, Any]
    shell: nn.Module

    @classmethod
    def of(cls, spec: ModelSpec, arguments: Mapping[str, Any]) -> Recognised:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors without elements
            return cls(spec, arguments, spec.build(**arguments))

    @property
    def wanted(self) -> Wanted:
        return Wanted.of(self.spec.title, self.shell.state_dict())


def recognise(
    checkpoint: Checkpoint, name: str | None, variant: str | None, ema: bool | None = None
) -> Recognised:
    """The network of a checkpoint.

    Args:
        checkpoint: the file.
        name: the network if it is known; None finds it by its keys.
        variant: its variant if it is known; None reads it from the shapes.
        ema: whether the averaged weights are meant, where there are both.

    Raises:
        DeblurExportError: the name or variant is unknown, the keys are of no network or of several,
            or the shapes fit no variant.
    """
    known = [models.get(name)] if name else list(map(models.get, models.NAMES))
    found = _outermost(
        [(spec, weights) for spec in known for weights in matching(spec, checkpoint)]
    )
    specs = known if name else list({spec.name: spec for spec, _ in found}.values())
    if len(specs) != 1:
        raise unknown(checkpoint, "", specs)
    spec = specs[0]
    if variant is not None:
        return Recognised.of(spec, spec.arguments_of(variant))
    sets = sorted((weights for _, weights in found), key=lambda w: w.averaged != bool(ema))
    if not sets:
        return _closest(spec, checkpoint)
    folders = {entry.folder for name in spec.keys_present for entry in sets[0].sources[name]}
    entries = itertools.chain.from_iterable(sets[0].sources.values())
    check_readable(checkpoint, (entry for entry in entries if entry.folder in folders))
    found_in = _implied(spec, sets[0])
    if found_in is None:
        raise DeblurExportError(
            f"{checkpoint.source}: the shapes of its tensors do not fit {spec.title}"
        )
    return found_in


def matching(spec: ModelSpec, checkpoint: Checkpoint) -> Iterator[WeightSet]:
    """The sets of weights whose keys are those of a network."""
    return (w for w in sets_with(checkpoint, spec.keys_present) if spec.matches(w.sources))


def is_known(checkpoint: Checkpoint) -> bool:
    """Whether the keys of a checkpoint are those of a network of this package."""
    return any(True for name in models.NAMES for _ in matching(models.get(name), checkpoint))


def looks_like(checkpoint: Checkpoint) -> str:
    """The end of a message: which network and variant a checkpoint that does not fit looks like."""
    for spec in map(models.get, models.NAMES):
        for weights in matching(spec, checkpoint):
            like = _implied(spec, weights)
            if like is not None:
                variant = spec.variant_of(like.arguments)
                return f". It looks like --model {spec.name}, variant {variant}"
    return ". It looks like none of the known models"


def _outermost(found: Sequence[tuple[ModelSpec, WeightSet]]) -> list[tuple[ModelSpec, WeightSet]]:
    """Those that are no part of another network, as the encoder of AIBNet is."""

    def inside(weights: WeightSet) -> bool:
        return any(
            other.key != weights.key
            and f"{weights.key}.".startswith(f"{other.key}." * bool(other.key))
            for _, other in found
        )

    return [(spec, weights) for spec, weights in found if not inside(weights)]


def unknown(
    checkpoint: Checkpoint, tried: str = "", specs: Sequence[ModelSpec] = ()
) -> DeblurExportError:
    """The refusal of a checkpoint whose keys match no network, or several.

    Args:
        checkpoint: the file.
        tried: what else was tried, as the next words of the message.
        specs: the networks that it matches.
    """
    names = [entry.name for entry in checkpoint.entries]
    if not names:
        return DeblurExportError(f"{checkpoint.source}: no tensors inside; expected a state dict")
    what = " and ".join(spec.name for spec in specs) or "none of the known models"
    return DeblurExportError(
        f"{checkpoint.source}: its keys match {what} ({', '.join(models.NAMES)}){tried}; select "
        f"one with --model. It has {len(names)} tensors: {some(names)}"
    )


def _implied(spec: ModelSpec, weights: WeightSet) -> Recognised | None:
    """The network that the shapes of a set of weights imply; None if there is none."""
    shapes: dict[str, Tensor] = {
        name: torch.empty(entries[0].tensor.shape, device="meta")
        for name, entries in weights.sources.items()
        if not entries[0].tensor.unfit
    }
    try:
        return Recognised.of(spec, spec.hyperparameters(shapes))
    except UNFIT:
        return None


def _closest(spec: ModelSpec, checkpoint: Checkpoint) -> Recognised:
    """The variant that the fewest keys of a checkpoint contradict."""

    def contradictions(network: Recognised) -> int:
        sets = sets_with(checkpoint, network.wanted.tensors)
        misfits = [len(misfit(weights, network.wanted)) for weights in sets]
        return min(misfits, default=len(network.wanted.tensors))

    known = [Recognised.of(spec, arguments) for arguments in spec.variants.values()]
    return min(known, key=contradictions)
