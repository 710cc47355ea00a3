"""Damage to exported files and their manifests, made from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

HUGE = (-1, 0, 1, 7, 2**31, 2**40, -(2**63))
TEXTS = ("", "x", "image", "restored", "\x1b[2J", "é" * 300, "[/red]", "../../x", "deblur")
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**30, "", "strange\x1b[2J", "nafnet", [], {}, [[]], [1, "a"]),
    *({"a": {}}, [1, 3, 0, 0], ["batch", 3, "height", "width"], "/dev/null", "x" * 5000),
)


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, a part cut out, doubled, or the end missing."""
    data, start = bytearray(content), rng.randrange(len(content))
    end = min(start + rng.choice((1, 8, 100, 10_000)), len(content))
    match rng.randrange(5):
        case 0:
            del data[start:]
        case 1:
            del data[start:end]
        case 2:
            data[start:start] = data[start:end]
        case _:
            # Mostly near the beginning, where nodes and names are rather than weights.
            for _ in range(rng.choice((1, 3, 20))):
                index = rng.randrange(len(data) if rng.random() < 0.2 else min(len(data), 80_000))
                data[index] = rng.randrange(256)
    return bytes(data)


def damaged_graph(rng: random.Random, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with one to three faults that protobuf can hold."""
    damaged = copy.deepcopy(model)
    for _ in range(rng.choice((1, 1, 3))):
        rng.choice(FAULTS)(rng, damaged)
    return damaged


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [*model.graph.node, *(node for body in model.functions for node in body.node)]


def _drop_node(rng: random.Random, model: onnx.ModelProto) -> None:
    del model.graph.node[rng.randrange(len(model.graph.node))]


def _double_node(rng: random.Random, model: onnx.ModelProto) -> None:
    model.graph.node.add().CopyFrom(rng.choice(model.graph.node))


def _swap_nodes(rng: random.Random, model: onnx.ModelProto) -> None:
    first, second = rng.sample(list(model.graph.node), 2)
    kept = copy.deepcopy(first)
    first.CopyFrom(second)
    second.CopyFrom(kept)


def _other_op(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(_nodes(model))
    node.op_type = rng.choice(("Relu", "Add", "Conv", "Sqrt", "Log", "Resize", "Loop", *TEXTS))


def _other_domain(rng: random.Random, model: onnx.ModelProto) -> None:
    rng.choice(_nodes(model)).domain = rng.choice(TEXTS)


def _other_input(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice([node for node in _nodes(model) if node.input])
    names = [name for other in model.graph.node for name in other.output]
    node.input[rng.randrange(len(node.input))] = rng.choice((*TEXTS, *rng.sample(names, 3)))


def _other_output(rng: random.Random, model: onnx.ModelProto) -> None:
    rng.choice(_nodes(model)).output[0] = rng.choice(TEXTS)


def _fewer_inputs(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(_nodes(model))
    del node.input[rng.randrange(len(node.input) + 1) :]


def _attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    attribute = rng.choice([a for node in _nodes(model) for a in node.attribute])
    match rng.randrange(5):
        case 0:
            attribute.i = rng.choice(HUGE)
        case 1:
            attribute.ints[:] = [rng.choice(HUGE) for _ in range(rng.randrange(6))]
        case 2:
            attribute.type = rng.choice(list(onnx.AttributeProto.AttributeType.values()))
        case 3:
            attribute.name = rng.choice(TEXTS)
        case _:
            attribute.s = rng.choice(TEXTS).encode()


def _initializer(rng: random.Random, model: onnx.ModelProto) -> None:
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(6):
        case 0:
            tensor.dims[:] = [rng.choice(HUGE) for _ in range(rng.randrange(5))]
        case 1:
            tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
        case 2:
            tensor.data_type = rng.choice(list(onnx.TensorProto.DataType.values()))
        case 3:
            tensor.name = rng.choice(TEXTS)
        case 4:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                strange = np.full_like(values, rng.choice((np.nan, np.inf, 1e38, 0.0)))
                tensor.CopyFrom(numpy_helper.from_array(strange, tensor.name))
        case _:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=rng.choice(TEXTS))


def _interface(rng: random.Random, model: onnx.ModelProto) -> None:
    value = rng.choice((*model.graph.input, *model.graph.output))
    tensor = value.type.tensor_type
    match rng.randrange(5):
        case 0:
            value.name = rng.choice(TEXTS)
        case 1:
            tensor.elem_type = rng.choice(list(onnx.TensorProto.DataType.values()))
        case 2:
            rng.choice(tensor.shape.dim).dim_value = rng.choice(HUGE)
        case 3:
            tensor.shape.dim.add(dim_value=1)
        case _:
            value.ClearField("type")


def _versions(rng: random.Random, model: onnx.ModelProto) -> None:
    match rng.randrange(3):
        case 0:
            model.ir_version = rng.choice(HUGE)
        case 1:
            rng.choice(model.opset_import).version = rng.choice((*HUGE, 1, 9999))
        case _:
            rng.choice(model.opset_import).domain = rng.choice(TEXTS)


def _value_info(rng: random.Random, model: onnx.ModelProto) -> None:
    name = rng.choice([name for node in model.graph.node for name in node.output])
    shape = [rng.choice(HUGE) for _ in range(rng.randrange(5))]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, shape))


def _functions(rng: random.Random, model: onnx.ModelProto) -> None:
    if model.functions:
        body = rng.choice(model.functions)
        part = rng.choice((body.input, body.output, body.node, body.opset_import))
        if part:
            del part[rng.randrange(len(part))]


FAULTS: tuple[Callable[[random.Random, onnx.ModelProto], None], ...] = (
    *(_drop_node, _double_node, _swap_nodes, _other_op, _other_domain, _other_input),
    *(_other_output, _fewer_inputs, _attribute, _initializer, _interface, _versions),
    *(_value_info, _functions),
)


def damaged_manifest(rng: random.Random, text: str) -> bytes:
    """Other values, missing and further fields, or text that is no JSON."""
    if rng.random() < 0.2:
        return damaged_bytes(rng, text.encode())
    document: Any = json.loads(text)
    if rng.random() < 0.05:
        return json.dumps(rng.choice(VALUES)).encode()
    for _ in range(rng.choice((1, 1, 3))):
        parent, name = rng.choice(list(_places(document)))
        match rng.randrange(4):
            case 0:
                del parent[name]
            case 1 if isinstance(parent, dict):
                parent[rng.choice(TEXTS)] = rng.choice(VALUES)
            case _:
                parent[name] = copy.deepcopy(rng.choice(VALUES))
        if not document:
            break
    return json.dumps(document).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    items: Any = ()
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for name, value in items:
        yield document, name
        yield from _places(value)
