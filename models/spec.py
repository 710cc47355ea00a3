"""What the rest of the package needs to know about one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

Padding = Literal["zeros", "reflect"]
TRAIN_SIZE = 256  # pixels a side of the crops that all networks here were trained on


@dataclass(frozen=True)
class Published:
    """One figure of a paper, and how to count ours so that the two compare.

    `parameters` and `gmacs` (1e9 multiply-adds of one image of `size`) as printed. `without`
    names modules the figure leaves out, as part of a dotted path. `convolutions` counts no matrix
    products; `with_bias` follows the ptflops tool (see `complexity.Macs`). `tolerance` is
    relative. `matched` False means that no reading reproduces the figure; `note` then says why.
    """

    parameters: float | None = None
    gmacs: float | None = None
    size: tuple[int, int] = (256, 256)
    without: tuple[str, ...] = ()
    convolutions: bool = False
    with_bias: bool = False
    tolerance: float = 0.02
    matched: bool = True
    note: str = ""

    def __str__(self) -> str:
        parameters = f"{self.parameters / 1e6:g} M" if self.parameters else ""
        height, width = self.size
        at = "" if self.size == (256, 256) else f" at {width}x{height}"
        return ", ".join(filter(None, (parameters, f"{self.gmacs:g} G{at}" if self.gmacs else "")))


@dataclass(frozen=True)
class ModelSpec:
    """One network: how to build it, recognise it, and feed it.

    `variants` maps a name to constructor arguments, the paper's first. A state dict belongs to
    the network when every key of `keys_present` occurs and no key starts with one of
    `keys_absent`. `receptive_field` is the radius in pixels, or None where global pooling makes
    every output pixel depend on the whole image. `padding` is how an image is filled up to the
    size multiple. `local` names the constructor's arguments that take the side of the training
    crops and turn global into local pooling (TLC). `published` maps a variant to figures of papers.
    `after_random` finishes a network that `randomize` has filled.
    """

    name: str
    title: str
    source: str
    build: Callable[..., nn.Module]
    variants: Mapping[str, Mapping[str, Any]]
    keys_present: tuple[str, ...]
    keys_absent: tuple[str, ...]
    hyperparameters: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    size_multiple: int
    receptive_field: int | None
    padding: Padding = "zeros"
    local: tuple[str, ...] = ()
    published: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    after_random: Callable[[nn.Module], None] | None = None

    @property
    def default_variant(self) -> str:
        return next(iter(self.variants))

    def matches(self, keys: Iterable[str]) -> bool:
        """Whether a state dict with these keys is this network's."""
        keys = set(keys)
        return keys.issuperset(self.keys_present) and not any(
            key.startswith(self.keys_absent) for key in keys
        )

    def variant_of(self, arguments: Mapping[str, Any]) -> str:
        """The name of the variant with these constructor arguments, or "custom"; with local
        pooling "-local" is appended."""
        shape = {name: value for name, value in arguments.items() if name not in self.local}
        found = (name for name, known in self.variants.items() if dict(known) == shape)
        return next(found, "custom") + (
            "-local" if self.local and self.local[0] in arguments else ""
        )


def count_blocks(keys: Iterable[str], prefix: str) -> int:
    """How many numbered children follow `prefix` in the keys of a state dict."""
    numbers = {key[len(prefix) :].split(".", 1)[0] for key in keys if key.startswith(prefix)}
    return len(numbers)
