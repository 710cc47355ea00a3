"""What the manifest of an engine says about its build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FixedShape = tuple[int, int, int, int]  # batch, channels, height, width


@dataclass(frozen=True)
class OtherFile:
    """Name and hash of another file: the ONNX file of an engine, or a plugin library."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Profile:
    """The optimization profile of an engine: the smallest and largest shape (N, C, H, W) that it
    accepts, and the typical one for which it is tuned."""

    smallest: FixedShape
    typical: FixedShape
    largest: FixedShape

    def __post_init__(self) -> None:
        sizes = zip(self.smallest, self.typical, self.largest, strict=True)
        if not all(1 <= low <= middle <= high for low, middle, high in sizes):
            raise ValueError("smallest, typical and largest do not ascend from 1")


@dataclass(frozen=True)
class BuildFlags:
    """Options that change an engine besides precision and sizes; see
    `engines.options.BuildOptions`."""

    tf32: bool
    workspace_gib: float | None
    version_compatible: bool
    hardware_compatible: bool
    compute_capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Census:
    """Counts of layers or weights by precision: `counts` maps fp32, fp16, ... to the number of
    `what` in it."""

    what: str
    counts: Mapping[str, int]

    def fraction(self, precision: str) -> float:
        """The fraction (0...1) in a precision; 0 if there is nothing."""
        return self.counts.get(precision, 0) / max(sum(self.counts.values()), 1)

    def __str__(self) -> str:
        """For example "70 of 76 convolution weights in the engine are fp16"."""
        total = sum(self.counts.values())
        parts = [f"{n} {p}" for p, n in sorted(self.counts.items(), key=lambda item: -item[1])]
        return f"{self.what}: {', '.join(parts)} of {total}" if total else f"{self.what}: none"


@dataclass(frozen=True)
class EngineCheck:
    """The check that an engine is in the requested precision ("int8+fp16" for example): counts of
    the parsed layers, of what the engine itself shows (None if nothing), and both in words."""

    precision: str
    network: Census
    engine: Census | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class EngineRecord:
    """How an engine was built from its ONNX file; `profile` is None if that has a fixed shape,
    `version` of TensorRT is empty if its own tools build the engine on another machine."""

    onnx: OtherFile
    backend: str
    version: str
    profile: Profile | None
    flags: BuildFlags
    plugins: tuple[OtherFile, ...]
    check: EngineCheck

    @property
    def built_elsewhere(self) -> bool:
        """Whether TensorRT's own tools build it, with the commands of `deblur-export trt`."""
        return not self.version
