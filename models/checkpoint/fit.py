"""Fit a checkpoint to a network: every tensor of the network from one place, of its shape, with
values that a network computes with, or a refusal that shows the keys."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint.files import Checkpoint, Entry
from deblur_export.models.checkpoint.sets import WeightSet, plain_name, sets_with
from deblur_export.models.checkpoint.tensors import DTYPES
from deblur_export.shown import shown

SHOWN_KEYS = 3
SHOWN_LENGTH = 80  # characters of a key
PROFILED = ("total_ops", "total_params")  # that thop adds to every module
SHARED = 4  # times the size of the file: weights that stand under several keys


@dataclass(frozen=True)
class Fitted:
    """Weights for a network.

    Attributes:
        state: its state dict, float32 where it is floating-point.
        key: where the weights stood in the file: "params", "state_dict.net_g"; "" for the top.
        ema: whether they are the averaged ones; None if the file left no choice and none was asked.
        notes: what was chosen and what was left out, in one line each.
    """

    state: dict[str, Tensor]
    key: str
    ema: bool | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Misfit:
    """What keeps a set of weights from a network: keys that it lacks, keys that it has beyond
    those, and keys of another shape, with both shapes."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        parts = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.reshaped,
        }
        return "; ".join(
            f"{len(keys)} {label} ({_first(keys)})" for label, keys in parts.items() if keys
        )


@dataclass(frozen=True)
class Wanted:
    """A network's state dict: `tensors` by the name that `plain_name` gives, with their own names
    in `names`. Their values are not used and may be on the meta device. `title` is for messages."""

    title: str
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]

    @classmethod
    def of(cls, title: str, state: Mapping[str, Tensor]) -> Wanted:
        plain = {plain_name(name): name for name in state}
        return cls(title, {name: state[own] for name, own in plain.items()}, plain)


def fit(
    checkpoint: Checkpoint,
    wanted: Wanted,
    ema: bool | None = None,
    advice: Callable[[], str] = lambda: "",
) -> Fitted:
    """The weights of a checkpoint for a network of any kind.

    A set of weights is what stands under one prefix, whatever its name. Of several sets that fit,
    the one that is not averaged over the training is taken, as the official evaluation of NAFNet
    does.

    Args:
        checkpoint: the file.
        wanted: what the network needs.
        ema: True takes the averaged weights, False the others; None takes what is there.
        advice: the end of the message if nothing fits.

    Raises:
        DeblurExportError: nothing fits, several different sets do, there is none of the kind that
            was asked for, or the tensors are not ordinary finite weights.
    """
    found = sets_with(checkpoint, wanted.tensors)
    fitting = [weights for weights in found if not misfit(weights, wanted)]
    asked = [w for w in fitting if ema is None or w.averaged == ema]
    choice = any(w.averaged for w in fitting) and not all(w.averaged for w in fitting)
    if choice and ema is None:
        asked = [w for w in asked if not w.averaged]
    if not asked:
        raise _refusal(checkpoint, wanted, found, ema, advice)
    chosen, *others = asked
    state = _read(checkpoint, chosen, wanted)
    for other in others:
        if not _equal(state, _read(checkpoint, other, wanted)):
            names = " and ".join(_title(weights) for weights in asked)
            raise DeblurExportError(
                f"{checkpoint.source}: {len(asked)} different sets of weights fit {wanted.title}, "
                f"{names}; save one of them alone"
            )
    notes = []
    if choice:
        other = next(w for w in fitting if w.averaged != chosen.averaged)
        kind, option = ("averaged", "no-ema") if chosen.averaged else ("last", "ema")
        notes.append(
            f"two sets of weights in {checkpoint.source}: {_title(chosen)} is taken, the {kind} "
            f"weights of the training; --{option} takes {_title(other)}"
        )
    if ignored := sorted({name.rpartition(".")[2] for name in _counters(chosen, wanted)}):
        count = len(_counters(chosen, wanted))
        notes.append(f"ignored {count} counters of training and profiling tools ({some(ignored)})")
    return Fitted(
        state,
        chosen.key,
        chosen.averaged if choice or ema is not None else None,
        tuple(notes),
    )


def misfit(weights: WeightSet, wanted: Wanted) -> Misfit:
    """What keeps a set of weights from a network; of length 0 if it fits."""
    counters = set(_counters(weights, wanted))
    reshaped = [
        f"{shown(name, SHOWN_LENGTH)} {entry.tensor.shape} instead of {tuple(tensor.shape)}"
        for name, tensor in sorted(wanted.tensors.items())
        for entry in weights.sources.get(name, ())
        if not entry.tensor.unfit and entry.tensor.shape != tuple(tensor.shape)
    ]
    return Misfit(
        _fit_to_show(set(wanted.tensors) - set(weights.sources)),
        _fit_to_show(set(_beside(weights, wanted)) - counters),
        tuple(reshaped),
    )


def _fit_to_show(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(shown(name, SHOWN_LENGTH) for name in sorted(names))


def check_readable(checkpoint: Checkpoint, entries: Iterable[Entry]) -> None:
    """Check that tensors are ordinary ones whose values are in the file.

    Raises:
        DeblurExportError: some are sparse, quantized, without values, larger than the file, ...
    """
    unfit = [(e.name, e.tensor.unfit) for e in entries if e.tensor.unfit]
    if unfit:
        raise DeblurExportError(
            f"{checkpoint.source}: {len(unfit)} tensors cannot be read as weights "
            f"({_some_with(unfit)}); save them as ordinary float32 tensors of their full size"
        )


def some(items: Collection[str]) -> str:
    """The first few keys, fit for a message, and how many more there are."""
    return _first([shown(item, SHOWN_LENGTH) for item in items])


def _some_with(pairs: Collection[tuple[str, str]]) -> str:
    """The first few keys, each with what is to say about it."""
    return _first([f"{shown(name, SHOWN_LENGTH)}: {shown(what)}" for name, what in pairs])


def _first(items: Sequence[str]) -> str:
    more = f", ... {len(items) - SHOWN_KEYS} more" if len(items) > SHOWN_KEYS else ""
    return ", ".join(items[:SHOWN_KEYS]) + more


def _title(weights: WeightSet) -> str:
    return f"'{shown(weights.key, SHOWN_LENGTH)}'" if weights.key else "the top of the file"


def _beside(weights: WeightSet, wanted: Wanted) -> Iterator[str]:
    """Names in the same wrappers as the network's tensors that are none of these."""
    folders = {e.folder for name in wanted.tensors for e in weights.sources.get(name, ())}
    for name, entries in weights.sources.items():
        if name not in wanted.tensors and any(entry.folder in folders for entry in entries):
            yield name


def _counters(weights: WeightSet, wanted: Wanted) -> list[str]:
    """Those of them that are no weights: single integers, and what thop counts."""

    def counts(name: str, entry: Entry) -> bool:
        tensor = entry.tensor
        single = not tensor.unfit and math.prod(tensor.shape) == 1
        named = name.rpartition(".")[2] in PROFILED
        return single and (named or not DTYPES[tensor.dtype].is_floating_point)

    return [
        name
        for name in _beside(weights, wanted)
        if all(counts(name, entry) for entry in weights.sources[name])
    ]


def _refusal(
    checkpoint: Checkpoint,
    wanted: Wanted,
    found: list[WeightSet],
    ema: bool | None,
    advice: Callable[[], str],
) -> DeblurExportError:
    source = checkpoint.source
    if not checkpoint.entries:
        return DeblurExportError(f"{source}: no tensors inside; expected a state dict")
    kind = [weights for weights in found if ema is None or weights.averaged == ema]
    if found and not kind:
        option, what = ("--ema", "averaged") if ema else ("--no-ema", "other than averaged")
        return DeblurExportError(
            f"{source}: {option}: it has no {what} weights, only {_title(found[0])}; leave the "
            "option out"
        )
    if not kind:
        names = [entry.name for entry in checkpoint.entries]
        what = f"none of its {len(names)} tensors has a name of this network ({some(names)})"
    else:
        what = str(misfit(kind[0], wanted)) + (f", under {_title(kind[0])}" if kind[0].key else "")
    return DeblurExportError(f"{source} does not fit {wanted.title}: {what}{advice()}")


def _read(checkpoint: Checkpoint, weights: WeightSet, wanted: Wanted) -> dict[str, Tensor]:
    """The values of a set that fits by its names and shapes."""
    entries = [entry for name in wanted.tensors for entry in weights.sources[name]]
    check_readable(checkpoint, entries)
    strange = [
        (entry.name, f"{entry.tensor.dtype} instead of {str(tensor.dtype).removeprefix('torch.')}")
        for name, tensor in wanted.tensors.items()
        for entry in weights.sources[name]
        if not _converts(DTYPES[entry.tensor.dtype], tensor.dtype)
    ]
    if strange:
        raise DeblurExportError(
            f"{checkpoint.source}: {len(strange)} tensors are no weights of {wanted.title} "
            f"({_some_with(strange)}); turn a quantized network back to floating point first"
        )
    if sum(entry.tensor.nbytes for entry in entries) > SHARED * checkpoint.size:
        raise DeblurExportError(
            f"{checkpoint.source}: its tensors claim more than {SHARED} times the size of the file"
        )
    state, broken, beyond = {}, [], []
    for name, own in wanted.names.items():
        sources = weights.sources[name]
        value = _one(checkpoint, sources)
        dtype = wanted.tensors[name].dtype
        state[own] = value.to(torch.float32 if dtype.is_floating_point else dtype)
        if not value.isfinite().all():
            broken.append(sources[0].name)
        elif not state[own].isfinite().all():
            beyond.append(sources[0].name)
    if broken:
        raise DeblurExportError(
            f"{checkpoint.source}: {len(broken)} tensors contain NaN or infinity ({some(broken)}); "
            "the training diverged or the file is damaged"
        )
    if beyond:
        raise DeblurExportError(
            f"{checkpoint.source}: {len(beyond)} tensors have values beyond the range of float32 "
            f"({some(beyond)}), in which networks are exported"
        )
    return state


def _converts(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether values of one type are values of the other: floating-point, integers or truth."""
    if stored.is_floating_point or wanted.is_floating_point:
        return stored.is_floating_point and wanted.is_floating_point
    return (stored == torch.bool) == (wanted == torch.bool)


def _one(checkpoint: Checkpoint, entries: Sequence[Entry]) -> Tensor:
    """The tensor of one key, from one source."""
    first, *others = entries
    value = _value(checkpoint, first)
    for other in others:
        same = other.tensor.dtype == first.tensor.dtype
        if not same or not torch.equal(value, _value(checkpoint, other)):
            raise DeblurExportError(
                f"{checkpoint.source}: two different tensors for one key "
                f"({some([first.name, other.name])}); save one set of weights alone"
            )
    return value


def _value(checkpoint: Checkpoint, entry: Entry) -> Tensor:
    try:
        return entry.tensor.read()
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise DeblurExportError(
            f"{checkpoint.source}: truncated or corrupt at {shown(entry.name, SHOWN_LENGTH)}; copy "
            "or download it again"
        ) from error


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())
