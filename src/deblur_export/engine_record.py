"""What the manifest of an engine says about its build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FixedShape = tuple[int, int, int, int]  # batch, channels, height, width


@dataclass(frozen=True)
class OtherFile:
    """Another file, by name: an engine's ONNX file or a plugin library."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Profile:
    """Shapes (N, 3, H, W): the smallest and largest that an engine takes, and what it is tuned
    for."""

    smallest: FixedShape
    typical: FixedShape
    largest: FixedShape

    def __post_init__(self) -> None:
        sizes = zip(self.smallest, self.typical, self.largest, strict=True)
        if not all(1 <= low <= middle <= high for low, middle, high in sizes):
            raise ValueError("smallest, typical and largest do not ascend from 1")


@dataclass(frozen=True)
class BuildFlags:
    """What changes an engine besides precision and sizes; see `engines.options.BuildOptions`."""

    tf32: bool
    workspace_gib: float | None
    version_compatible: bool
    hardware_compatible: bool
    compute_capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Census:
    """How much of what computes in which precision: `counts` maps fp32, fp16, ... to numbers of
    `what`."""

    what: str
    counts: Mapping[str, int]

    def share(self, precision: str) -> float:
        """0...1; 0 of nothing."""
        return self.counts.get(precision, 0) / max(sum(self.counts.values()), 1)

    def __str__(self) -> str:
        """For example "70 of 76 convolution weights in the engine are fp16"."""
        total = sum(self.counts.values())
        parts = [f"{n} {p}" for p, n in sorted(self.counts.items(), key=lambda item: -item[1])]
        return f"{self.what}: {', '.join(parts)} of {total}" if total else f"{self.what}: none"


@dataclass(frozen=True)
class EngineProof:
    """That an engine is in the precision asked for ("int8+fp16" for example): the layers parsed,
    what the engine itself shows, None if nothing, and both in words."""

    precision: str
    network: Census
    engine: Census | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class EngineRecord:
    """How an engine came from its ONNX file; `profile` is None where that has a fixed shape."""

    onnx: OtherFile
    backend: str
    version: str
    profile: Profile | None
    flags: BuildFlags
    plugins: tuple[OtherFile, ...]
    proof: EngineProof
