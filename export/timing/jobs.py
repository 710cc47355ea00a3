"""What the parent asks a worker to load, as plain values that JSON can represent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deblur_export.models.checkpoint import DEMO, LoadedModel, load_model
from deblur_export.precision import GraphPrecision

TORCH = "torch"  # the engine of a job that PyTorch runs
# Input with the forced choice and output with the network's own choice, if a decision is forced.
FORCED_CHOICE, OWN_CHOICE = "forced_choice", "own_choice"


@dataclass(frozen=True)
class Network:
    """How to load a network in another process; the fields are arguments of `load_model`."""

    name: str
    variant: str | None
    weights: str
    local: bool
    ema: bool | None = None

    def load(self) -> LoadedModel:
        return load_model(self.name, self.variant, self.weights, self.local, self.ema)


def network_of(model: LoadedModel) -> Network:
    """The arguments with which `load_model` loads the same network."""
    named = model.weights == DEMO or model.weights.startswith("random:")
    variant = model.variant.removesuffix("-local") if named else None
    local = "train_size" in model.arguments
    return Network(model.spec.name, variant, model.weights, local, model.ema)


@dataclass(frozen=True)
class Job:
    """A candidate to load: an ONNX `file` for the backend `engine`, or a `network` for PyTorch.

    `decision` is the name of the mask decision that the feed forces; a file was rewritten for that
    by `coverage.force_choice`.
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
    """The job of which `dataclasses.asdict` returned `fields`."""
    network = fields["network"]
    return Job(**{**fields, "network": None if network is None else Network(**network)})
