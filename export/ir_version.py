"""The lowest IR version of ONNX that the content of a model needs.

A runtime refuses every file of an IR version that it does not know, even where the file holds
nothing new: ONNX Runtime 1.15 knows version 9, and PyTorch's exporter writes 10. The versions below
are those that the enumeration `Version` of onnx.proto names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx.helper import find_min_ir_version_for

LOWEST = 4  # initializers need not be inputs
FIELDS = {
    "ModelProto.functions": 8,
    "FunctionProto.attribute_proto": 9,
    "FunctionProto.overload": 10,
    "FunctionProto.value_info": 10,
    "FunctionProto.metadata_props": 10,
    "GraphProto.metadata_props": 10,
    "NodeProto.metadata_props": 10,
    "NodeProto.overload": 10,
    "TensorProto.metadata_props": 10,
    "ValueInfoProto.metadata_props": 10,
    "ModelProto.configuration": 11,
    "NodeProto.device_configurations": 11,
}
ELEMENT_TYPES = {
    "FLOAT8E4M3FN": 9,
    "FLOAT8E4M3FNUZ": 9,
    "FLOAT8E5M2": 9,
    "FLOAT8E5M2FNUZ": 9,
    "UINT4": 10,
    "INT4": 10,
    "FLOAT4E2M1": 11,
    "FLOAT8E8M0": 12,
    "UINT2": 13,
    "INT2": 13,
    "FLOAT6E2M3": 14,
    "FLOAT6E3M2": 14,
}
TYPE_FIELDS = ("data_type", "elem_type", "key_type")


def ir_version(model: onnx.ModelProto) -> int:
    """The lowest IR version for a model's fields, types and operator sets.

    An operator set needs the version of the ONNX release that brought it; one that the installed
    onnx does not know, such as that of our ops, needs none.
    """
    imports = [*model.opset_import, *(i for f in model.functions for i in f.opset_import)]
    needed = find_min_ir_version_for(imports, ignore_unknown=True)
    return max(LOWEST, needed, *_needs(model))


def lower_ir_version(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, whose IR version is set to the lowest."""
    model.ir_version = ir_version(model)
    return model


def _needs(message: Any) -> Iterator[int]:
    """What the fields and types in a message need, and those in the messages that it holds."""
    for field, value in message.ListFields():
        yield FIELDS.get(f"{message.DESCRIPTOR.name}.{field.name}", 1)
        if field.name in TYPE_FIELDS:
            yield ELEMENT_TYPES.get(onnx.TensorProto.DataType.Name(value), 1)
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _needs(inner)
