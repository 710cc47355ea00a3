"""Small ONNX files as other exporters write them, made here node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Size = int | str
FREE: tuple[Size, ...] = ("n", 3, "h", "w")
FLOAT, HALF, DOUBLE, UINT8 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.UINT8,
)


class File:
    """A graph that grows by nodes; `save` writes it."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.random = np.random.default_rng(0)

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: NDArray[Any] | np.generic) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(
        self, source: str, output: str, channels: tuple[int, int], op: str = "Conv", **more: Any
    ) -> str:
        """A convolution, 3x3 with padding unless `kernel` is given."""
        kernel = more.pop("kernel", 3)
        given, made = channels
        shape = (made, given) if op == "Conv" else (given, made)
        size = (given * kernel**2) ** -0.5
        weight = size * self.random.normal(size=(*shape, kernel, kernel))
        names = [
            self.constant(f"{output}.weight", weight.astype(np.float32)),
            self.constant(f"{output}.bias", (0.1 * self.random.normal(size=made)).astype("f")),
        ]
        pads = {} if "strides" in more else {"pads": [kernel // 2] * 4}
        return self.add(op, [source, *names], output, **pads, **more)

    def save(
        self,
        path: Path,
        input: ValueInfoProto | None = None,
        outputs: Sequence[ValueInfoProto] = (),
        further: Sequence[ValueInfoProto] = (),
        opset: int = 17,
        ir_version: int = 8,
        domains: Sequence[str] = (),
        functions: Sequence[onnx.FunctionProto] = (),
    ) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [input or value("x"), *further],
            list(outputs) or [value("y", shape=("n", "c", "oh", "ow"))],
            initializer=self.weights,
        )
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(
            graph, opset_imports=imports, ir_version=ir_version, functions=list(functions)
        )
        onnx.save(model, path)
        return path


def value(name: str, kind: int = FLOAT, shape: Sequence[Size] | None = FREE) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def plain(path: Path, **how: Any) -> Path:
    """x -> conv, ReLU, conv -> y; of any size."""
    return body(File()).save(path, **how)


def body(file: File, source: str = "x", output: str = "y", channels: int = 3) -> File:
    file.conv(source, "features", (channels, 8))
    file.add("Relu", ["features"], "active")
    file.conv("active", output, (8, channels))
    return file


def deep(file: File, source: str = "x", output: str = "y", layers: int = 10) -> File:
    """Layers enough that first and last are a small part."""
    file.conv(source, "head", (3, 8))
    last = "head"
    for number in range(layers):
        file.conv(last, f"layer{number}", (8, 8))
        last = file.add("Relu", [f"layer{number}"], f"active{number}")
    file.conv(last, output, (8, 3))
    return file


def fixed(path: Path) -> Path:
    return plain(path, input=value("x", shape=(1, 3, 24, 32)))


def nhwc(path: Path) -> Path:
    file = File()
    file.add("Transpose", ["in"], "x", perm=[0, 3, 1, 2])
    body(file)
    file.add("Transpose", ["y"], "out", perm=[0, 2, 3, 1])
    shape = ("n", "h", "w", 3)
    return file.save(path, value("in", shape=shape), [value("out", shape=shape)])


def residual(path: Path) -> Path:
    """In -1..1 it gives nearly its input."""
    file = deep(File(), output="change")
    file.add("Mul", ["change", file.constant("small", np.float32(0.05))], "slight")
    file.add("Add", ["x", "slight"], "sum")
    file.add("Tanh", ["sum"], "y")
    return file.save(path)


def doubling(path: Path) -> Path:
    """Scale 2."""
    file = File()
    file.conv("x", "features", (3, 12))
    file.add("DepthToSpace", ["features"], "y", blocksize=2, mode="CRD")
    return file.save(path)


def grey(path: Path) -> Path:
    shape = ("n", 1, "h", "w")
    return body(File(), channels=1).save(path, value("x", shape=shape))


def strided(path: Path) -> Path:
    """Accepts multiples of 8: a strided convolution and a transposed one, and a sum."""
    file = File()
    file.conv("x", "down", (3, 8), kernel=8, strides=[8, 8])
    file.add("Relu", ["down"], "active")
    file.conv("active", "up", (8, 3), "ConvTranspose", kernel=8, strides=[8, 8])
    file.add("Add", ["x", "up"], "y")
    return file.save(path)


def two_outputs(path: Path) -> Path:
    """The second is half as high and wide."""
    file = body(File())
    file.add("AveragePool", ["y"], "half", kernel_shape=[2, 2], strides=[2, 2])
    shape = ("n", 3, "a", "b")
    return file.save(path, outputs=[value("half", shape=shape), value("y", shape=shape)])


def external(path: Path) -> Path:
    model = onnx.load(plain(path))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def old_ir(path: Path) -> Path:
    """IR 3: initializers are inputs too; opset 9."""
    file = body(File())
    further = [value(w.name, shape=tuple(w.dims)) for w in file.weights]
    return file.save(path, further=further, opset=9, ir_version=3)


def half(path: Path) -> Path:
    """Weights, input and output in float16."""
    file = body(File())
    file.weights = [
        numpy_helper.from_array(numpy_helper.to_array(w).astype(np.float16), w.name)
        for w in file.weights
    ]
    return file.save(path, value("x", HALF), [value("y", HALF)])


def bytes_in_and_out(path: Path) -> Path:
    file = File()
    file.constant("top", np.float32(255))
    file.add("Cast", ["in"], "levels", to=FLOAT)
    file.add("Div", ["levels", "top"], "x")
    deep(file, layers=24)
    file.add("Mul", ["y", "top"], "scaled")
    file.add("Round", ["scaled"], "rounded")
    file.add("Clip", ["rounded", file.constant("bottom", np.float32(0)), "top"], "clipped")
    file.add("Cast", ["clipped"], "out", to=UINT8)
    return file.save(path, value("in", UINT8), [value("out", UINT8)])


def our_names(path: Path) -> Path:
    """Values that have the names of our own ends."""
    file = File()
    file.conv("image", "mask", (3, 8))
    file.add("Relu", ["mask"], "restored")
    file.conv("restored", "padding/size", (8, 3))
    return file.save(path, value("image"), [value("padding/size")])


def constants_as_nodes(path: Path) -> Path:
    file = body(File())
    constants = [helper.make_node("Constant", [], [w.name], value=w) for w in file.weights]
    file.nodes, file.weights = [*constants, *file.nodes], []
    return file.save(path)


def computed_weights(path: Path) -> Path:
    """As tf2onnx writes them: [height, width, in, out], transposed in the graph."""
    file = deep(File(), layers=3)
    for node in [node for node in file.nodes if node.op_type == "Conv"]:
        name = node.input[1]
        tensor = next(w for w in file.weights if w.name == name)
        array = numpy_helper.to_array(tensor).transpose(2, 3, 1, 0)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
        node.input[1] = f"{name}.turned"
        turn = helper.make_node("Transpose", [name], [node.input[1]], perm=[3, 2, 0, 1])
        file.nodes.insert(0, turn)
    return file.save(path)


def function(path: Path) -> Path:
    file = File()
    file.conv("x", "features", (3, 8))
    file.add("Activation", ["features"], "active", domain="theirs")
    file.conv("active", "y", (8, 3))
    node = helper.make_node("Relu", ["a"], ["b"])
    made = helper.make_function(
        "theirs", "Activation", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]
    )
    return file.save(path, domains=["theirs"], functions=[made])


def foreign(path: Path) -> Path:
    """An operator that only ONNX Runtime has."""
    file = File()
    file.add("QuickGelu", ["x"], "bent", domain="com.microsoft", alpha=1.7)
    return deep(file, "bent").save(path, domains=["com.microsoft"])


def branch(path: Path) -> Path:
    """An If whose branches read a value of the graph."""
    file = File()
    file.conv("x", "first", (3, 3))
    file.add("Shape", ["x"], "shape")
    file.add("Gather", ["shape", file.constant("one", np.int64(1))], "channels")
    file.add("Equal", ["channels", file.constant("three", np.int64(3))], "colour")
    inner = [
        helper.make_graph([helper.make_node(op, ["first"], [op])], op, [], [value(op, shape=None)])
        for op in ("Relu", "Neg")
    ]
    file.add("If", ["colour"], "chosen", then_branch=inner[0], else_branch=inner[1])
    return deep(file, "chosen", layers=12).save(path)


def double_inside(path: Path) -> Path:
    file = File()
    file.add("Cast", ["x"], "wide", to=DOUBLE)
    file.add("Sqrt", ["wide"], "root")
    file.add("Cast", ["root"], "back", to=FLOAT)
    return deep(file, "back").save(path)


def opset(version: int) -> Callable[[Path], Path]:
    return lambda path: plain(path, opset=version, ir_version=10 if version > 18 else 8)
