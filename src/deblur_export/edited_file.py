"""What the graph of an ONNX file says where an edit may have made its manifest out of date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from deblur_export.errors import DeblurExportError
from deblur_export.manifest import Manifest
from deblur_export.onnx_reading import custom_ops
from deblur_export.shown import shown

TYPES = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}


def described(manifest: Manifest, model: onnx.ModelProto) -> Manifest:
    """The manifest of an edited file with the opset and the custom ops of its graph."""
    opset = max(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        default=manifest.opset,
    )
    return replace(manifest, opset=opset, custom_ops=custom_ops(model))


def check_interface(path: Path, manifest: Manifest, model: onnx.ModelProto) -> None:
    """Check that a graph takes and returns what its manifest says.

    Raises:
        DeblurExportError: another name, type or shape; the message says which.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in constants]
    for what, values, wanted in (
        ("input", given, manifest.input),
        ("output", list(model.graph.output), manifest.output),
    ):
        value = next((value for value in values if value.name == wanted.name), None)
        if value is None or (what == "input" and len(values) > 1):
            names = shown(", ".join(value.name for value in values) or "none")
            raise _changed(path, what, names, wanted.name)
        tensor = value.type.tensor_type
        if tensor.elem_type != TYPES[wanted.dtype]:
            raise _changed(path, what, _type_name(tensor.elem_type), wanted.dtype)
        if tensor.HasField("shape") and not _fits(tensor.shape.dim, wanted.shape):
            dims = [str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim]
            raise _changed(path, what, shown("x".join(dims)), "x".join(map(str, wanted.shape)))


def _fits(dims: Sequence[onnx.TensorShapeProto.Dimension], shape: Sequence[int | str]) -> bool:
    """Whether each size that a graph fixes is the one that the manifest fixes."""
    return len(dims) == len(shape) and all(
        not dim.HasField("dim_value") or dim.dim_value == size
        for dim, size in zip(dims, shape, strict=True)
    )


def _type_name(kind: int) -> str:
    known = onnx.TensorProto.DataType.items()
    return next((name.lower() for name, number in known if number == kind), "of no known type")


def _changed(path: Path, what: str, found: str, wanted: str) -> DeblurExportError:
    return DeblurExportError(
        f"{path}: its {what} is {found}, and {wanted} in its manifest: a tool has changed that; "
        "export it again, with --shape for a fixed size"
    )
