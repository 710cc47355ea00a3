"""What the parent asks of a worker, as plain values that go through JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deblur_export.models.checkpoint import DEMO, LoadedModel, load_model
from deblur_export.precision import GraphPrecision

TORCH = "torch"  # what runs a job that no backend runs
# Of a network whose decision is forced: the choice as an input, and its own as an output.
FORCED_CHOICE, OWN_CHOICE = "forced_choice", "own_choice"


@dataclass(frozen=True)
class Network:
    """How to load a network again in another process; arguments as `load_model`'s."""

    name: str
    variant: str | None
    weights: str
    local: bool

    def load(self) -> LoadedModel:
        return load_model(self.name, self.variant, self.weights, self.local)


def network_of(model: LoadedModel) -> Network:
    """The network that `load_model` gives again."""
    named = model.weights == DEMO or model.weights.startswith("random:")
    variant = model.variant.removesuffix("-local") if named else None
    return Network(model.spec.name, variant, model.weights, "train_size" in model.arguments)


@dataclass(frozen=True)
class Job:
    """One peer to load.

    An ONNX `file`, run by the backend named `engine`, or a `network` for PyTorch. `decision` names
    the mask decision of the network that the feed forces; a file has been rewritten to that end
    (`coverage.force_choice`).
    """

    engine: str
    precision: GraphPrecision
    threads: int
    file: str | None = None
    network: Network | None = None
    native: bool = False
    compiled: bool = False
    decision: str | None = None


def job_from(fields: Mapping[str, Any]) -> Job:
    """`dataclasses.asdict` of a job, read back."""
    network = fields["network"]
    return Job(**{**fields, "network": None if network is None else Network(**network)})
