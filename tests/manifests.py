"""Manifests for tests: of a toy network, and what changes with the precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deblur_export import __version__
from deblur_export.image_shape import Shape, enlarged
from deblur_export.manifest import Manifest
from deblur_export.manifest_blocks import (
    CalibrationRecord,
    Fact,
    Input,
    Model,
    MultiplyAdds,
    Output,
    PrecisionMap,
    Tile,
    WeightCounts,
    Weights,
)

ANY_SIZE: Shape = ("batch", 3, "height", "width")


def make_manifest(shape: Shape = ANY_SIZE, scale: int = 1, **changes: Any) -> Manifest:
    """Of a float32 file; the changes are fields of `Manifest`."""
    unit = (0.0, 1.0)
    whole = Manifest(
        tools={"deblur_export": __version__},
        model=Model("built-in", "toy", "tiny", None, {}, "a paper", None),
        weights=Weights("random:0", "0" * 64),
        target="portable",
        opset=18,
        precision="fp32",
        high_precision="fp32",
        custom_ops=(),
        input=Input(
            name="image",
            shape=shape,
            channels=shape[1],
            range=unit,
            multiple=1,
            minimum=1,
            square=False,
            dtype="float32",
            layout="NCHW",
            colour="grey" if shape[1] == 1 else "RGB",
            padding="zeros",
        ),
        output=Output("restored", 0, scale, unit, enlarged(shape, scale), "float32"),
        free=tuple(size for size in shape if isinstance(size, str)),
        facts={"multiple": Fact(1, "given")},
        tile=Tile(None, 1, proved=False),
        reparameterized=True,
        passes=(),
    )
    return replace(whole, **changes)


def in_precision(precision: str, high: str = "fp32", layout: str = "tensorrt") -> dict[str, Any]:
    """The fields that tell of a precision, for `make_manifest` or `replace`."""
    if precision == "fp32":
        return {"precision": "fp32", "high_precision": "fp32", "precision_map": None}
    shares, kept = MultiplyAdds(1.0, 0.9), {"a reason": ("a node",)}
    floats = PrecisionMap(shares, {precision: 5, "fp32": 1}, kept, WeightCounts(9, 0, 1))
    if precision != "int8":
        return {"precision": precision, "high_precision": precision, "precision_map": floats}
    around = None if high == "fp32" else replace(floats, nodes={high: 5, "fp32": 1})
    counts = PrecisionMap(
        shares,
        {"int8": 2, "fp32": 1},
        kept,
        int8_weights_sha256="1" * 64,
        high_precision=around,
    )
    scales = {"a tensor": (0.5, 0)}
    calibration: Any = ("mse", layout, ("a photo",), "2" * 64, scales, 0.1, 0.01, "PSNR lost")
    return {
        "precision": "int8",
        "high_precision": high,
        "precision_map": counts,
        "calibration": CalibrationRecord(*calibration),
    }
