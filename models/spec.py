"""The specification of a network: everything that the rest of the package needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deblur_export.errors import DeblurExportError
from deblur_export.models.image_spec import ImageSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAIN_SIZE = 256  # side in pixels of the crops that the papers of all networks here train on


@dataclass(frozen=True)
class Published:
    """A figure from a paper, and how to count this implementation so that the two are comparable.

    Attributes:
        parameters: number of parameters as printed.
        gmacs: 1e9 multiply-adds of one image of `size` as printed.
        size: height and width in pixels.
        without: modules that the figure leaves out, as parts of a dotted path.
        convolutions: count convolutions only, no matrix products.
        with_bias: count as the ptflops tool does (see `complexity.Macs`).
        tolerance: relative.
        matched: False if no interpretation of the paper reproduces the figure; `note` says why.
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
        figures = filter(None, (parameters, f"{self.gmacs:g} G{at}" if self.gmacs else ""))
        return ", ".join(figures) + ("" if self.matched else " (not matched)")


@dataclass(frozen=True)
class ModelSpec:
    """How to build a network, recognise its checkpoints and prepare its input.

    Attributes:
        name: as in `models.NAMES`.
        title: as in the paper.
        source: reference to the paper.
        build: the constructor.
        variants: constructor arguments by variant name; the paper's variant is first.
        keys_present, keys_absent: a state dict belongs to the network if it contains every key of
            `keys_present` and no key that starts with one of `keys_absent`.
        hyperparameters: reads the constructor arguments from a state dict.
        images: which images it accepts and gives, with the default arguments.
        images_of: the same for other constructor arguments, where it depends on them.
        local: the constructor arguments that take the side of the training crops and replace global
            by local pooling (TLC).
        published: figures from papers by variant.
        after_random: adjusts a network after `randomize` has filled it.
        blur_mask: the decision module that tells which pixels are blurred, [N, 1, h, w].
    """

    name: str
    title: str
    source: str
    build: Callable[..., nn.Module]
    variants: Mapping[str, Mapping[str, Any]]
    keys_present: tuple[str, ...]
    keys_absent: tuple[str, ...]
    hyperparameters: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    images: ImageSpec
    images_of: Callable[[Mapping[str, Any]], ImageSpec] | None = None
    local: tuple[str, ...] = ()
    published: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    after_random: Callable[[nn.Module], None] | None = None
    blur_mask: str | None = None

    @property
    def default_variant(self) -> str:
        return next(iter(self.variants))

    def matches(self, keys: Iterable[str]) -> bool:
        """Whether a state dict with these keys belongs to this network."""
        keys = set(keys)
        return keys.issuperset(self.keys_present) and not any(
            key.startswith(self.keys_absent) for key in keys
        )

    def arguments_of(self, variant: str) -> Mapping[str, Any]:
        """The constructor arguments of a variant.

        Raises:
            DeblurExportError: there is no such variant; the message lists those that are there.
        """
        if variant not in self.variants:
            known = ", ".join(self.variants)
            raise DeblurExportError(f"{self.name} has no variant '{variant}'; it has: {known}")
        return self.variants[variant]

    def variant_of(self, arguments: Mapping[str, Any]) -> str:
        """The name of the variant with these constructor arguments, or "custom" if there is none;
        "-local" is appended for local pooling."""
        shape = {name: value for name, value in arguments.items() if name not in self.local}
        found = (name for name, known in self.variants.items() if dict(known) == shape)
        return next(found, "custom") + (
            "-local" if self.local and self.local[0] in arguments else ""
        )


def count_blocks(keys: Iterable[str], prefix: str) -> int:
    """Number of numbered submodules that follow `prefix` in the keys of a state dict."""
    numbers = {key[len(prefix) :].split(".", 1)[0] for key in keys if key.startswith(prefix)}
    return len(numbers)
