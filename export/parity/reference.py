"""What a file should compute, a PyTorch network or another file: the reference of `verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deblur_export.export.float64 import float64_copy, run_float64
from deblur_export.export.graph_folds import GRAPH_PASSES
from deblur_export.export.parity.runners import TorchRunner
from deblur_export.export.reparam.prepare import prepare
from deblur_export.export.to_onnx import traced_weights
from deblur_export.manifest import Manifest
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.decisions import (
    FLOAT32,
    Allowance,
    ChoiceCheck,
    Choices,
    decisions,
    with_choices,
)

Array = NDArray[np.float32]
NO_CHOICES: Choices = {}


@dataclass(frozen=True)
class Expected:
    """What a reference computed: the restored image, float32 [N, C, scale H, scale W] in about
    0..1, and the checks of the discrete choices that it was given."""

    restored: Array
    checks: Sequence[ChoiceCheck] = ()


class Reference(Protocol):
    """What a file should compute, in float32.

    Attributes:
        name: in messages: "PyTorch".
        title: with its version, precision and weights, for reports.
        decisions: names of its discrete choices; see `models.decisions`.
        notes: for the user.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def decisions(self) -> tuple[str, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def run(
        self, image: Array, choices: Choices = NO_CHOICES, allowance: Allowance = FLOAT32
    ) -> Expected:
        """Restore an image, float32 [N, C, H, W] in 0..1, with given choices, which are checked.

        Raises:
            DeblurExportError: it cannot run the image.
        """
        ...

    def run_float64(self, image: Array, choices: Choices = NO_CHOICES) -> NDArray[np.float64]:
        """Restore an image in float64.

        Raises:
            NotFloat64Error: it does not compute in float64.
            DeblurExportError: it has no float64 form.
        """
        ...

    def weights(self) -> Sequence[Array]:
        """The float32 weights that the file was made of, for `float32_form`."""
        ...

    def layers(self, image: Array) -> frozenset[str]:
        """Names of the inner values that `run_layers` can give on an image."""
        ...

    def run_layers(
        self, image: Array, names: Sequence[str], choices: Choices = NO_CHOICES
    ) -> dict[str, Array]:
        """Inner values by name, as the file that was made of it should have them."""
        ...


class TorchReference:
    """A PyTorch network, a `Reference`.

    Its layers and its weights are those of the network as it was exported, so that in a comparison
    of layers only the arithmetic differs.

    Args:
        model: the network.
        reparameterized: whether it was exported with the exact folds.
        manifest: of the file; None if there is none, for a network whose graph was not folded.
    """

    name = "PyTorch"
    notes: tuple[str, ...] = ()

    def __init__(
        self, model: LoadedModel, reparameterized: bool, manifest: Manifest | None = None
    ) -> None:
        self.model, self.reparameterized, self.manifest = model, reparameterized, manifest
        self.title = f"PyTorch {torch.__version__} float32, {model.title}, {model.origin}"

    @property
    def decisions(self) -> tuple[str, ...]:
        return tuple(decisions(self.model.net))

    @cached_property
    def _exported(self) -> nn.Module:
        return prepare(self.model, self.reparameterized)[0]

    @cached_property
    def _exact(self) -> nn.Module:
        return float64_copy(self.model.net)

    def run(
        self, image: Array, choices: Choices = NO_CHOICES, allowance: Allowance = FLOAT32
    ) -> Expected:
        net = self.model.net
        with with_choices(net, choices, allowance) as checks, TorchRunner(net) as runner:
            restored = runner.infer({"image": image})["restored"]
        return Expected(restored, checks)

    def run_float64(self, image: Array, choices: Choices = NO_CHOICES) -> NDArray[np.float64]:
        with with_choices(self._exact, choices):
            return run_float64(self._exact, torch.from_numpy(image).double()).numpy()

    def weights(self) -> list[Array]:
        values = [*self._exported.parameters(), *self._exported.buffers(), *self._folded()]
        return [v.detach().numpy() for v in values if v.dtype == torch.float32]

    def _folded(self) -> list[torch.Tensor]:
        """The weights that folds of the captured graph made, if there were any."""
        names = {graph_pass.__name__ for graph_pass in GRAPH_PASSES}
        if self.manifest is None or not any(
            report.changed and report.name in names for report in self.manifest.passes
        ):
            return []
        sizes = self.manifest.input.shape
        fixed = tuple(size if isinstance(size, int) else 1 for size in sizes)
        return traced_weights(
            self._exported,
            self.model.images,
            self.manifest.free,
            fixed,  # type: ignore[arg-type]
        )

    def layers(self, image: Array) -> frozenset[str]:
        return frozenset(_called_once(self._exported, image))

    def run_layers(
        self, image: Array, names: Sequence[str], choices: Choices = NO_CHOICES
    ) -> dict[str, Array]:
        net = self._exported
        with with_choices(net, choices), TorchRunner(net, modules=tuple(names)) as runner:
            found: dict[str, Any] = runner.infer({"image": image})
        return {name: found[name] for name in names}


def _called_once(net: nn.Module, image: Array) -> set[str]:
    """Modules that run exactly once and return one tensor."""
    calls: Counter[str] = Counter()

    def count(name: str, output: object) -> None:
        calls[name] += 1 if isinstance(output, torch.Tensor) else 2

    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: count(name, o))
        for name, module in net.named_modules()
        if name
    ]
    with torch.no_grad():
        net(torch.from_numpy(image))
    for handle in handles:
        handle.remove()
    return {name for name, count in calls.items() if count == 1}
