"""The blocks of a manifest: the network, its weights, its input and output, what is known of it,
and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deblur_export.image_shape import LARGEST_SIDE, OutputShape, Shape, check_shape, check_sizes


@dataclass(frozen=True)
class Model:
    """The network. `where` tells how to find one that is not built in (module:callable, file,
    entry point or ONNX file), `arguments` are its constructor's. `source` names the paper of a
    built-in network and the file of another, whose SHA-256 is `source_sha256`."""

    origin: Literal["built-in", "callable", "plugin", "spandrel", "onnx"]
    name: str
    variant: str
    where: str | None
    arguments: Mapping[str, Any]
    source: str | None
    source_sha256: str | None

    @property
    def title(self) -> str:
        """The network and its variant, "nafnet:32"; only the network if it has no variants."""
        return f"{self.name}:{self.variant}" if self.variant else self.name

    @property
    def stem(self) -> str:
        """The same for names of files and graphs: "nafnet_32"."""
        return f"{self.name}_{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class Weights:
    """Where the weights were: "demo", "random:SEED" or a path, and under which `key` ("params";
    None for the top). `ema` tells which of two sets they are: the averaged one?"""

    source: str
    sha256: str
    key: str | None = None
    ema: bool | None = None


@dataclass(frozen=True)
class Input:
    """The one input. Images are filled up to `multiple` (right and bottom, inside the graph) as
    `padding` says; each side has at least `minimum` pixels, and both are equal if `square`."""

    name: str
    shape: Shape
    channels: int
    range: tuple[float, float]
    multiple: int
    minimum: int
    square: bool
    dtype: Literal["float32", "float16"]
    layout: Literal["NCHW"]
    colour: Literal["RGB", "BGR", "grey"]
    padding: Literal["zeros", "reflect"]

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_sizes(1, channels=self.channels, multiple=self.multiple, minimum=self.minimum)
        if self.shape[1] != self.channels:
            raise ValueError("channels are not those of the shape")

    @property
    def batch(self) -> int | None:
        """Images at once; None for any number."""
        return self.shape[0] if isinstance(self.shape[0], int) else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels; None for any."""
        height, width = self.shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None


@dataclass(frozen=True)
class Output:
    """The output: the network's output number `index`, `scale` times as high and wide as the
    image. The values of a restored image lie about in `range`; the graph does not clip them."""

    name: str
    index: int
    scale: int
    range: tuple[float, float]
    shape: OutputShape
    dtype: Literal["float32", "float16"]

    def __post_init__(self) -> None:
        check_sizes(0, index=self.index)
        check_sizes(1, scale=self.scale)
        check_shape(self.shape, LARGEST_SIDE * self.scale)


@dataclass(frozen=True)
class Fact:
    """Something about the network, and how it is known: the user or the network's own description
    gave it, a probe found it, or nothing contradicts it."""

    value: Any
    by: Literal["given", "found", "assumed"]


@dataclass(frozen=True)
class Tile:
    """What tiling has to respect. `field`: radius of the receptive field in pixels; None if an
    output pixel depends on the whole image. `period`: tile origins are multiples of it, in pixels.
    `proved`: whether a tiled run was compared with an untiled one."""

    field: int | None
    period: int
    proved: bool

    def __post_init__(self) -> None:
        check_sizes(0, field=self.field or 0)
        check_sizes(1, period=self.period)


@dataclass(frozen=True)
class PassReport:
    """One applied pass; errors are float64 maxima relative to the largest output."""

    name: str
    changed: tuple[str, ...]
    declined: tuple[tuple[str, str], ...]
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    max_error: float


@dataclass(frozen=True)
class MultiplyAdds:
    """Shares, 0..1, of the multiply-adds that are in the low precision: of all convolutions, and of
    all convolutions and matrix products."""

    conv: float
    conv_and_matmul: float


@dataclass(frozen=True)
class WeightCounts:
    """How many weights were cast; of these, how many became 0 and how many lost digits."""

    cast: int
    flushed_to_zero: int
    subnormal: int


@dataclass(frozen=True)
class PrecisionMap:
    """What of a graph is in low precision. `nodes`: numbers of nodes by precision. `kept_fp32`:
    names of the others, by the reason. Of a floating-point precision `weights`; of int8 the SHA-256
    of its weights and, where the rest is not float32, the map of that."""

    multiply_adds: MultiplyAdds
    nodes: Mapping[str, int]
    kept_fp32: Mapping[str, tuple[str, ...]]
    weights: WeightCounts | None = None
    int8_weights_sha256: str | None = None
    high_precision: PrecisionMap | None = None


@dataclass(frozen=True)
class CalibrationRecord:
    """How an int8 file was calibrated. `scales`: scale and zero point of every quantized
    activation. `psnr_drop` and its limit `max_psnr_drop` in dB, None for no limit;
    `psnr_drop_means` says in words against what."""

    method: str
    layout: Literal["tensorrt", "cpu"]
    images: tuple[str, ...]
    images_sha256: str
    scales: Mapping[str, tuple[float, int]]
    max_psnr_drop: float | None
    psnr_drop: float
    psnr_drop_means: str


@dataclass(frozen=True)
class FileRecord:
    """The artifact's own file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ParityRecord:
    """A verification that passed; `max_abs` is the largest error of all `cases`."""

    reference: str
    candidate: str
    cases: int
    max_abs: float
