"""The sets of weights in a checkpoint: under which keys a network's tensors stand, and which set is
taken of several. Nothing here knows a network of this package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deblur_export.models.checkpoint.files import Checkpoint, Entry

# Modules that PyTorch puts around others: DataParallel, torch.compile, FSDP, checkpointing.
AROUND = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Averages of the weights over the training: params_ema, ema_model, netEMA, swa_model.
MOST_SETS = 16
DEEPEST = 3  # prefixes of the names within a wrapper
# Prefixes of a network among other things: its loss, its discriminator, a copy of it.
COPY = re.compile(
    r"(model_?)?state_dict|params|model|net|network|generator|net_?g|model_?g|g", re.I
)
AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|shadow)(?![a-z])|EMA")


@dataclass(frozen=True)
class WeightSet:
    """The tensors under one prefix.

    Attributes:
        key: the prefix without the modules of `AROUND`: "params", "state_dict.net_g"; "" if there
            is none.
        sources: the tensors by what follows the prefix; a name should have one.
    """

    key: str
    sources: Mapping[str, Sequence[Entry]]

    @property
    def averaged(self) -> bool:
        """Whether its key says that it is an average over the training (EMA)."""
        return AVERAGED.search(self.key) is not None


def plain_name(name: str) -> str:
    """A dotted name without the modules that PyTorch puts around others."""
    return ".".join(part for part in name.split(".") if part not in AROUND)


def sets_with(checkpoint: Checkpoint, wanted: Collection[str]) -> list[WeightSet]:
    """The sets that have most of the wanted names, in falling order, then in that of the file."""
    found: dict[str, set[str]] = {}
    deepest = max((name.count(".") + 1 for name in wanted), default=0)
    for entry in checkpoint.entries:
        parts = plain_name(entry.name).split(".")
        for length in range(1, min(deepest, len(parts)) + 1):
            rest = ".".join(parts[-length:])
            if rest in wanted:
                found.setdefault(".".join(parts[:-length]), set()).add(rest)
    most_first = sorted(found.items(), key=lambda item: -len(item[1]))
    return [
        _under(checkpoint, key)
        for key, names in most_first[:MOST_SETS]
        if 2 * len(names) >= len(most_first[0][1])
    ]


def whole_sets(checkpoint: Checkpoint) -> Iterator[WeightSet]:
    """What may be the state dict of a network that is not known: all that stands in a wrapper, the
    largest first, and the same without a prefix that all names share or that marks a copy of the
    network. A part of what stands together is never taken for a network."""
    folders = Counter(plain_name(entry.folder) for entry in checkpoint.entries)
    for folder, _ in folders.most_common(MOST_SETS):
        waiting = [folder]
        for key in waiting:
            weights = _under(checkpoint, key)
            yield weights
            first = Counter(name.partition(".")[0] for name in weights.sources)
            deep = key.count(".") - folder.count(".") >= DEEPEST
            if deep or not first.keys().isdisjoint(weights.sources):
                continue
            waiting += [
                f"{key}.{name}" if key else name
                for name, _ in first.most_common(MOST_SETS)
                if len(first) == 1 or COPY.fullmatch(name) or AVERAGED.search(name)
            ]


def _under(checkpoint: Checkpoint, key: str) -> WeightSet:
    start = f"{key}." if key else ""
    sources: dict[str, list[Entry]] = {}
    for entry in checkpoint.entries:
        name = plain_name(entry.name)
        if name.startswith(start):
            sources.setdefault(name[len(start) :], []).append(entry)
    return WeightSet(key, sources)
