"""Checks that an engine computes in the requested precision.

A strongly typed network states the type of every layer; the types that the built engine shows must
agree with it, and both must be what the user asked for. This detects three silent failures: a file
that was never converted, a parser that ignores its QDQ pairs, and a builder that drops the types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deblur_export.engine_record import Census
from deblur_export.errors import CheckFailedError
from deblur_export.precision import PRECISIONS, EnginePrecision

# Minimum fraction of the arithmetic layers that must have the requested precision: the layers that
# stay in float32 on purpose (sampling positions, states of a scan, small matrix products) are the
# minority.
MIN_FRACTION = 0.5
# An engine may fuse and split layers, so that its fractions differ from those of the network.
FUSION = 0.1

# How TensorRT's inspector spells types: "Half", "FP16 NHWC8", "Row major linear BFloat16", ... It
# may show eight-bit floats, which no exported file has. A spelling may be contained in one that
# comes before it: "float16" in "bfloat16", and "float" in nearly all.
SPELLINGS: Mapping[str, str] = {
    "fp8": r"fp8|float8",
    **{name: PRECISIONS[name].inspector for name in reversed(tuple(PRECISIONS))},
}
REDUCED = tuple(name for name in SPELLINGS if name != "fp32")
ARITHMETIC = re.compile(r"conv|gemm|gemv|matmul|matrixmultiply", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """What the manifest of a file states: `file` is its name for messages, `int8_layers` the number
    of its convolutions and matrix products in int8."""

    file: str
    int8_layers: int = 0


def check_engine(
    precision: EnginePrecision,
    network: Census,
    engine: Census | None,
    expected: Census,
    claim: Claim,
) -> list[str]:
    """Check the precision of an engine and return the findings as lines for the user.

    Args:
        precision: the requested one.
        network: counts of the parsed, strongly typed layers.
        engine: counts of the layers that the built engine shows; None if it shows none.
        expected: what `engine` is if the builder kept every type of the file.
        claim: what the manifest of the file states.

    Raises:
        CheckFailedError: the network or the engine does not compute in `precision`.
    """
    if "int8" in precision:
        _check_int8_network(precision, network, claim)
    else:
        _check_network(precision, network, claim.file)
    if engine is None:
        return [str(network), "the engine itself shows no types; only the network was checked"]
    for part in precision.split("+"):
        if engine.fraction(part) < expected.fraction(part) - FUSION:
            raise CheckFailedError(
                f"{claim.file}: asked for {precision}, but the built engine is not ({engine}; with "
                f"the file's types {expected.fraction(part):.0%} would be {part}); the engine was "
                "not kept"
            )
    return [str(network), str(engine)]


def check_layers(precision: str, engine: Census, claim: Claim) -> Census:
    """Check the precision of an engine by its own layers alone, and return their counts.

    Raises:
        CheckFailedError: it does not compute in `precision`.
    """
    parts = precision.split("+")
    share = sum(map(engine.fraction, parts))
    strange = [other for other in REDUCED if other not in parts and engine.fraction(other)]
    missing = [part for part in parts if not engine.fraction(part)]
    enough = share >= MIN_FRACTION or precision == "int8"  # what int8 leaves is float32
    if missing or not enough or (precision == "fp32" and strange):
        raise CheckFailedError(
            f"{claim.file}: asked for {precision}, but the engine is not ({engine}); build it "
            "again with the commands of deblur-export trt"
        )
    return engine


def _check_network(precision: EnginePrecision, network: Census, name: str) -> None:
    if precision == "fp32":
        _refuse_other(precision, network, name, REDUCED)
    elif network.fraction(precision) < MIN_FRACTION:
        raise CheckFailedError(
            f"{name}: asked for {precision}, but the graph is not {precision} ({network}); "
            f"export it with deblur-export onnx --precision {precision}; the engine was not kept"
        )


def _check_int8_network(precision: EnginePrecision, network: Census, claim: Claim) -> None:
    """Check that the int8 layers of the file are parsed as int8, and the others in their type."""
    found = network.counts.get("int8", 0)
    if found != claim.int8_layers or not found:
        raise CheckFailedError(
            f"{claim.file}: {claim.int8_layers} of its layers are in int8, but the parser made "
            f"{found} of them ({network}); the engine was not kept"
        )
    high = precision.removeprefix("int8+")
    if high == "int8":
        others = [other for other in REDUCED if other != "int8"]
        _refuse_other(precision, network, claim.file, others)
    elif (
        network.fraction("int8") + network.fraction(high) < MIN_FRACTION
        or high not in network.counts
    ):
        raise CheckFailedError(
            f"{claim.file}: asked for {precision}, but what int8 leaves is not {high} ({network}); "
            "the engine was not kept"
        )


def _refuse_other(
    precision: EnginePrecision, network: Census, name: str, others: Sequence[str]
) -> None:
    reduced = [other for other in others if network.fraction(other)]
    if reduced:
        raise CheckFailedError(
            f"{name}: asked for {precision}, but it holds {', '.join(reduced)} ({network}); "
            "the engine was not kept"
        )


def inspected(information: str) -> Census | None:
    """Count the arithmetic layers in the JSON of TensorRT's engine inspector by the type of their
    first input.

    If no layer has the name of a convolution or matrix product, as in an engine that was fused
    into one layer, all layers with floating-point inputs count. Returns None without types, as
    for an engine of lower profiling verbosity.
    """
    layers = [layer for layer in json.loads(information)["Layers"] if isinstance(layer, dict)]
    arithmetic = [layer for layer in layers if ARITHMETIC.search(layer.get("LayerType", ""))]
    counts: dict[str, int] = {}
    for layer in arithmetic or layers:
        precision = _input_precision(layer)
        if precision is not None:
            counts[precision] = counts.get(precision, 0) + 1
    kind = "arithmetic layers" if arithmetic else "layers"
    return Census(f"{kind} of the engine (inspector)", counts) if counts else None


def _input_precision(layer: Mapping[str, Any]) -> str | None:
    """The precision of the first input: TensorRT 10 has one field for format and type, TensorRT 11
    two."""
    for tensor in layer.get("Inputs", ())[:1]:
        text = tensor.get("Datatype") or tensor.get("Format/Datatype") or ""
        for precision, spelling in SPELLINGS.items():
            if re.search(spelling, text, re.IGNORECASE):
                return precision
    return None
