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
from deblur_export.image_shape import enlarged
from deblur_export.manifest_blocks import (
    CalibrationRecord,
    Fact,
    FileRecord,
    Input,
    Model,
    Output,
    ParityRecord,
    PassReport,
    PrecisionMap,
    Tile,
    Weights,
)
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
LONGEST_SHOWN = 20  # characters of a strange format number


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
        if self.output.shape != enlarged(self.input.shape, self.output.scale):
            raise ValueError("output.shape is not input.shape at output.scale")
        if self.engine is not None and (self.engine.profile is None) != (not self.free):
            raise ValueError("engine.profile is there for a fixed shape, or missing for a free one")

    @property
    def blur_mask(self) -> str | None:
        """The value of the graph that tells which pixels are blurred, [N, 1, h, w]; None for a
        network that decides nothing of the kind, whatever its layers are called."""
        fact = self.facts.get("blur_mask")
        return fact.value if fact is not None and isinstance(fact.value, str) else None

    @property
    def noted(self) -> tuple[str, ...]:
        """What the export found remarkable, one line each: why a size is not free, choices."""
        fact = self.facts.get("notes")
        return tuple(map(str, fact.value)) if fact and isinstance(fact.value, list | tuple) else ()

    @property
    def title(self) -> str:
        """The network and its variant, "nafnet:32"."""
        return self.model.title

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
