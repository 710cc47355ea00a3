"""The manifest of an artifact: what it computes, from which weights, and what it wants as input.

The manifest travels inside the ONNX file (metadata) and, with the file's own hash and later its
parity figures, in `<file>.json` beside it. An engine has only the file beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from deblur_export import __version__
from deblur_export.engine_record import EngineRecord
from deblur_export.errors import DeblurExportError
from deblur_export.precision import GraphPrecision, PrecisionName
from deblur_export.shown import shown
from deblur_export.target import TargetName
from deblur_export.typed_json import (
    NOT_IN_JSON,
    FieldError,
    Place,
    place_name,
    plain,
    put_back,
    read_record,
    split_unknown,
)

FORMAT = 2
LARGEST_SIDE = 16384  # pixels, of what can be exported
LONGEST_SHOWN = 20  # characters of a strange format number

# Batch, channels, height and width; a name if the file accepts any size.
Shape = tuple[int | Literal["batch"], int, int | Literal["height"], int | Literal["width"]]


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
        _check_shape(self.shape)
        _check_sizes(1, channels=self.channels, multiple=self.multiple, minimum=self.minimum)
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
    shape: Shape
    dtype: Literal["float32", "float16"]

    def __post_init__(self) -> None:
        _check_shape(self.shape)
        _check_sizes(0, index=self.index)
        _check_sizes(1, scale=self.scale)


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
        _check_sizes(0, field=self.field or 0)
        _check_sizes(1, period=self.period)


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


@dataclass(frozen=True)
class Manifest:
    """What an artifact says of itself.

    `precision` is that of the graph, `high_precision` that of what int8 leaves (`precision` itself
    in a file without int8). `free` names the dimensions that may have any size. `passes` are the
    exact folds, in order; `reparameterized` tells whether any were asked for. `unknown` are the
    fields that a newer version wrote and this one does not know, by their place; they are kept.

    Raises:
        ValueError: the blocks contradict each other.
    """

    tools: Mapping[str, str]
    model: Model
    weights: Weights
    target: TargetName
    opset: int
    precision: PrecisionName
    high_precision: GraphPrecision
    custom_ops: tuple[str, ...]
    input: Input
    output: Output
    free: tuple[Literal["batch", "height", "width"], ...]
    facts: Mapping[str, Fact]
    tile: Tile
    reparameterized: bool
    passes: tuple[PassReport, ...]
    precision_map: PrecisionMap | None = None
    calibration: CalibrationRecord | None = None
    engine: EngineRecord | None = None
    file: FileRecord | None = None
    parity: ParityRecord | None = None
    unknown: Mapping[Place, Any] = field(default_factory=dict, metadata=NOT_IN_JSON)

    def __post_init__(self) -> None:
        if self.precision not in ("int8", self.high_precision):
            raise ValueError("high_precision is not that of precision")
        if (self.precision_map is None) != (self.precision == "fp32"):
            raise ValueError("precision_map is there for float32, or missing for another precision")
        if (self.calibration is None) != (self.precision != "int8"):
            raise ValueError("calibration is there without int8, or int8 without it")
        if self.free != tuple(size for size in self.input.shape if isinstance(size, str)):
            raise ValueError("free does not name what is free in input.shape")
        if self.engine is not None and (self.engine.profile is None) != (not self.free):
            raise ValueError("engine.profile is there for a fixed shape, or missing for a free one")

    @property
    def title(self) -> str:
        """The network and its variant, "nafnet:width32"."""
        return f"{self.model.name}:{self.model.variant}"

    @property
    def notes(self) -> tuple[str, ...]:
        """For the user: which fields of a newer version are ignored."""
        names = [place_name(place) for place in self.unknown]
        if not names:
            return ()
        wrote = shown(self.tools.get("deblur_export"))
        listed = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        return (
            f"the manifest is from deblur-export {wrote}; this version, {__version__}, ignores "
            f"{listed} in it",
        )

    @property
    def layout(self) -> Literal["tensorrt", "cpu"] | None:
        """That of an int8 file's activations; None for other files."""
        return None if self.calibration is None else self.calibration.layout

    @property
    def int8_layers(self) -> int:
        """Convolutions and products that are in int8."""
        return 0 if self.precision_map is None else self.precision_map.nodes.get("int8", 0)

    def derived(self, **changes: Any) -> Manifest:
        """The manifest of another file that is made of this one, whose hash and parity figures are
        not its own."""
        return replace(self, **({"file": None, "parity": None} | changes))

    def as_dict(self) -> dict[str, Any]:
        """What the JSON holds, optional blocks left out where there is none."""
        document = {"format": FORMAT, **plain(self)}
        put_back(document, self.unknown)
        return document

    def to_json(self, indent: int | None = None) -> str:
        """As text; the same manifest gives the same text. Without `indent` keys are sorted."""
        document = self.as_dict()
        return json.dumps(document, indent=indent, sort_keys=indent is None, allow_nan=False)

    @classmethod
    def from_json(
        cls,
        content: str | bytes | Mapping[str, Any],
        where: Path | str,
        what: str = "a manifest",
        advice: str = "export again",
    ) -> Manifest:
        """Read what `to_json` or `as_dict` gave.

        Args:
            content: JSON text, or what it stands for.
            where: the file that it is from, for messages.
            what: it should be, for messages.
            advice: for messages; what to do about another content.

        Raises:
            DeblurExportError: not JSON, another format, or a field is missing, unknown, of the
                wrong type or contradicts another one; the message names it. Unknown fields of a
                newer version are no error, see `unknown`.
        """
        try:
            document = _parsed(content)
            if not isinstance(document, Mapping):
                raise FieldError("the whole is not an object")
            if "format" not in document:
                raise FieldError("format is missing")
            known = document["format"]
            if type(known) is not int or known != FORMAT:
                found = shown(repr(known), LONGEST_SHOWN)
                raise DeblurExportError(
                    f"{where}: manifest format {found} is not {FORMAT}; use the deblur-export "
                    f"version that wrote it, or {advice}"
                )
            fields = {k: v for k, v in document.items() if k != "format"}
            unknown: dict[Place, Any] = {}
            if _is_newer(fields):
                fields, unknown = split_unknown(cls, fields)
            return replace(read_record(cls, fields), unknown=unknown)
        except FieldError as error:
            raise DeblurExportError(f"{where}: not {what}: {error}; {advice}") from error
        except RecursionError as error:
            raise DeblurExportError(
                f"{where}: not {what}: it is nested too deeply; {advice}"
            ) from error


def _parsed(content: str | bytes | Mapping[str, Any]) -> object:
    if isinstance(content, Mapping):
        return content
    try:
        return json.loads(content, parse_constant=_refuse)
    except FieldError:
        raise
    except ValueError as error:  # of bytes that are no text, too
        raise FieldError("it cannot be read as JSON") from error


def _is_newer(fields: Mapping[str, Any]) -> bool:
    """Whether a newer version of this package wrote a document."""
    tools = fields.get("tools")
    wrote = tools.get("deblur_export") if isinstance(tools, Mapping) else None
    return isinstance(wrote, str) and _release(wrote) > _release(__version__)


def _release(version: str) -> tuple[int, ...]:
    """(1, 2) of "1.2.dev3"."""
    digits = re.match(r"\d{1,9}(\.\d{1,9})*", version)
    return tuple(map(int, digits[0].split("."))) if digits else ()


def _refuse(name: str) -> NoReturn:
    raise FieldError(f"{name} is no number in JSON")


def _check_shape(shape: Shape) -> None:
    if not all(1 <= size <= LARGEST_SIDE for size in shape if isinstance(size, int)):
        raise ValueError(f"shape has sizes below 1 or above {LARGEST_SIDE}")
    if isinstance(shape[2], int) != isinstance(shape[3], int):
        raise ValueError("shape has one side fixed and the other free")


def _check_sizes(least: int, **values: int) -> None:
    for name, value in values.items():
        if not least <= value <= LARGEST_SIDE:
            raise ValueError(f"{name} is below {least} or above {LARGEST_SIDE}")
