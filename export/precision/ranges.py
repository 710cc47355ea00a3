"""Finds the ranges of the tensors of a float32 graph on images, and which ones exceed float16."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.export.graph import copied, message_of, with_outputs
from deblur_export.export.images.cases import Case
from deblur_export.export.precision.fingerprint import fingerprint
from deblur_export.export.runtimes.emulated_session import float32_session
from deblur_export.precision import FP16

LARGEST = FP16.largest
NORMAL, SUBNORMAL = FP16.min_power, FP16.min_subnormal_power
HEADROOM = 2.0  # powers of two: another photo may have values four times as large
CHUNK = 2**28  # bytes of observed tensors in memory at a time
EXPONENTS = (-151, 129)  # powers of two of float32, including the subnormal ones


@dataclass
class TensorRange:
    """The range of a tensor over all images.

    Attributes:
        name: of the tensor.
        op: operator type of the node that computes it.
        low, high: smallest and largest value.
        count: number of observed values.
        finite: whether all values are finite.
        exponents: numbers of values other than 0 by power of two.
    """

    name: str
    op: str
    low: float = math.inf
    high: float = -math.inf
    count: int = 0
    finite: bool = True
    exponents: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(EXPONENTS[1] - EXPONENTS[0], np.int64), repr=False
    )

    def add(self, values: NDArray[np.float32]) -> None:
        """Add the values of the tensor on one image."""
        if not values.size:
            return
        self.finite &= bool(np.isfinite(values).all())
        self.low = min(self.low, float(np.nanmin(values)))
        self.high = max(self.high, float(np.nanmax(values)))
        self.count += values.size
        powers = np.frexp(values[values != 0])[1] - 1 - EXPONENTS[0]
        self.exponents += np.bincount(powers, minlength=self.exponents.size)[: self.exponents.size]

    @property
    def largest(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    @property
    def headroom(self) -> float:
        """Powers of two between the largest absolute value and the largest float16 number; negative
        if the tensor exceeds float16."""
        if not self.finite:
            return -math.inf
        return math.log2(LARGEST / self.largest) if self.largest else math.inf

    @property
    def small(self) -> int | None:
        """The power of two below which 1 % of the values other than 0 are; None without any."""
        total = int(self.exponents.sum())
        if not total:
            return None
        index = int(np.searchsorted(np.cumsum(self.exponents), 0.01 * total, side="right"))
        return index + 1 + EXPONENTS[0]

    def below(self, power: int) -> float:
        """The fraction of all values that are not 0 and smaller than 2**power, in 0..1."""
        return float(self.exponents[: power - EXPONENTS[0]].sum() / max(self.count, 1))

    def as_dict(self) -> dict[str, Any]:
        fields = {k: v for k, v in asdict(self).items() if k != "exponents"}
        return fields | {
            "max_abs": self.largest,
            "headroom": self.headroom,
            "small": self.small,
            "below_normal": self.below(NORMAL),
            "below_subnormal": self.below(SUBNORMAL),
        }


def observe(
    model: onnx.ModelProto,
    cases: Sequence[Case],
    progress: Callable[[str], None] = lambda step: None,
    chunk: int = CHUNK,
) -> list[TensorRange]:
    """Find the range of every float tensor of the main graph over all cases, in graph order.

    Outputs of custom ops are included, values inside their function bodies are not.

    Args:
        model: a float32 graph.
        cases: the images.
        progress: called with a line of text for each step.
        chunk: bytes of tensors in memory at a time; for more, the graph is run several times.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    infos = (*inferred.value_info, *inferred.output)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    found = {
        name: TensorRange(name, node.op_type)
        for node in model.graph.node
        for name in node.output
        if types.get(name) == onnx.TensorProto.FLOAT and node.op_type != "Constant"
    }
    chunks = list(_chunks(_sizes(model, list(found), cases), chunk))
    for number, names in enumerate(chunks):
        session = float32_session(with_outputs(model, names, instead=True))
        for case in cases:
            progress(f"{case.name}, part {number + 1} of {len(chunks)}")
            values = session.run(list(names), {"image": case.image})
            for name, value in zip(names, values, strict=True):
                found[name].add(value)
    return list(found.values())


def _sizes(model: onnx.ModelProto, names: list[str], cases: Sequence[Case]) -> dict[str, int]:
    """Bytes of each tensor on the largest case."""
    largest = max(cases, key=lambda case: case.image.size)
    sized = copied(model)
    for name in names:
        sized.graph.node.add(op_type="Size", input=[name], output=[f"size of {name}"])
    sizes_of = [f"size of {name}" for name in names]
    session = float32_session(with_outputs(sized, sizes_of, instead=True))
    sizes = session.run(None, {"image": largest.image})
    return {name: 4 * int(size) for name, size in zip(names, sizes, strict=True)}


def _chunks(sizes: Mapping[str, int], chunk: int) -> Iterator[list[str]]:
    names, held = list[str](), 0
    for name, size in sizes.items():
        if names and held + size > chunk:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names


# From a complete float32 graph to the headroom of its tensors by name.
HeadroomRule = Callable[[ir.Model], Mapping[str, float]]


def nothing_known(graph: ir.Model) -> Mapping[str, float]:
    """No tensor was observed."""
    return {}


def too_close(headrooms: Mapping[str, float]) -> dict[str, str]:
    """Names of tensors with less than `HEADROOM` powers of two, with the reason to keep them in
    float32."""
    reason = f"less than {HEADROOM:g} powers of two below 65504 on the images given"
    return {name: reason for name, headroom in headrooms.items() if headroom < HEADROOM}


def headrooms_by_images(
    cases: Sequence[Case], progress: Callable[[str], None] = lambda step: None
) -> HeadroomRule:
    """The headrooms on these images."""

    def rule(graph: ir.Model) -> Mapping[str, float]:
        found = observe(message_of(graph), cases, progress)
        return {entry.name: entry.headroom for entry in found}

    return rule


def headrooms_by_file(path: Path) -> HeadroomRule:
    """The headrooms that a file of `write_ranges` holds.

    Raises:
        DeblurExportError: the file is not of this kind; the rule raises it if the file describes
            another graph.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        known = {str(entry["name"]): float(entry["headroom"]) for entry in document["tensors"]}
        observed = str(document["graph_sha256"])
    except FileNotFoundError as error:
        raise DeblurExportError(
            f"{path}: no such file; make one with deblur-export ranges FILE.onnx --json {path}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeblurExportError(
            f"{path}: not written by deblur-export ranges; make one with deblur-export ranges "
            "FILE.onnx --images DIR --json F"
        ) from error

    def rule(graph: ir.Model) -> Mapping[str, float]:
        if fingerprint(graph) != observed:
            raise DeblurExportError(
                f"{path} is about another graph or other weights; run deblur-export ranges on the "
                "float32 file of the same network, weights, target and options"
            )
        return known

    return rule


def write_ranges(path: Path, ranges: Sequence[TensorRange], about: Mapping[str, Any]) -> None:
    """As JSON, whole or not at all; infinite headroom (only zeros seen) is a string."""
    document = dict(about) | {"float16_max": LARGEST, "tensors": [r.as_dict() for r in ranges]}
    text = json.dumps(_strict(document), indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
