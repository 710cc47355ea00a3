"""What the parent asks a worker to load, as plain values that JSON can represent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deblur_export.models.foreign.examine import Given
from deblur_export.models.loading import NetworkChoice
from deblur_export.precision import GraphPrecision

TORCH = "torch"  # the engine of a job that PyTorch runs
# Input with the forced choice and output with the network's own choice, if a decision is forced.
FORCED_CHOICE, OWN_CHOICE = "forced_choice", "own_choice"


@dataclass(frozen=True)
class Original:
    """The ONNX file that files were adopted from, by its SHA-256 and one of these files, which
    tells where it is and how it wants images."""

    sha256: str
    adopted: str = field(compare=False)


@dataclass(frozen=True)
class Job:
    """A candidate to load: an ONNX `file` for the backend `engine`, a `network` for PyTorch, or the
    original of the file `adopted`, which runs on ONNX Runtime.

    `decision` is the name of the mask decision that the feed forces; a file was rewritten for that
    by `coverage.force_choice`.
    """

    engine: str
    precision: GraphPrecision
    threads: int
    file: str | None = None
    network: NetworkChoice | None = None
    native: bool = False
    compiled: bool = False
    decision: str | None = None
    adopted: str | None = None


def job_from(fields: Mapping[str, Any]) -> Job:
    """The job of which `dataclasses.asdict` returned `fields`."""
    network = fields["network"]
    return Job(**{**fields, "network": None if network is None else choice_from(network)})


def choice_from(fields: Mapping[str, Any]) -> NetworkChoice:
    """The network of which `dataclasses.asdict` returned `fields`; JSON has lists for tuples."""
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in fields["given"].items()
    }
    return NetworkChoice(**{**fields, "given": Given(**given)})
