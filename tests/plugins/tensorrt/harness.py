"""Calls plugins as TensorRT does, through harness.cpp."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.compile import cuda as cuda_compiler
from deblur_export.plugins.compile import tensorrt as tensorrt_compiler
from deblur_export.plugins.compile.cpu import BuildError
from deblur_export.plugins.ops import OPS
from tests import needs
from tests.plugins.harness import Inputs, split_attributes

HERE = Path(__file__).parent
CSRC = Path(tensorrt_compiler.__file__).resolve().parents[1] / "csrc"

# nvinfer1::DataType and TensorFormat
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 7, torch.int64: 8, torch.int32: 3}
LINEAR, CHW4 = 0, 3
AXES = 8


def skip_without_headers() -> None:
    try:
        tensorrt_compiler.tensorrt_headers()
        tensorrt_compiler.cuda_headers()
        cpu_compiler.compiler()
    except BuildError as error:
        pytest.skip(needs.Need("what the TensorRT plugins are compiled with", str(error)).reason)


def build_on_host(folder: Path) -> Path:
    """The plugins in `folder`, over the CUDA kernels as a C++ compiler makes them (csrc/emulation):
    they compute on the processor, in host memory."""
    skip_without_headers()
    command = [*cpu_compiler.compiler(), "-std=c++17", "-O1", "-fPIC", "-DDEBLUR_EMULATION"]
    objects = {
        str(folder / f"{file.parent.name}-{file.stem}.o"): file for file in CSRC.glob("*/*.cu")
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = pool.map(
            lambda o: cpu_compiler.run([*command, "-x", "c++", "-c", str(objects[o]), "-o", o]),
            objects,
        )
        list(compiled)
    kernels = folder / cuda_compiler.LIBRARY
    cpu_compiler.run([*command, "-shared", *objects, "-o", str(kernels)])
    target = folder / tensorrt_compiler.LIBRARY
    tensorrt_compiler.build(CSRC, target, kernels)
    return target


def compile_harness(target: Path) -> Path:
    """harness.cpp as a shared library."""
    headers = tensorrt_compiler.tensorrt_headers(), tensorrt_compiler.cuda_headers()
    include = [argument for folder in headers for argument in ("-isystem", str(folder))]
    command = [*cpu_compiler.compiler(), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    files = ["-fPIC", "-shared", str(HERE / "harness.cpp"), "-ldl", "-o", str(target)]
    cpu_compiler.run([*command, *include, *files])
    return target


def node_name(op: str, inputs: Inputs) -> str:
    """The op of a node in an exported file: LocalMean has one for each window."""
    return f"{op}{inputs['kernel']}" if op == "LocalMean" else op


@dataclass(frozen=True)
class Described:
    """Tensors as the C functions take them; None is an input that is absent."""

    tensors: Sequence[Tensor | None]

    @property
    def arrays(self) -> tuple[int, Any, Any]:
        shapes = [() if t is None else tuple(t.shape) for t in self.tensors]
        return described(shapes)

    @property
    def types(self) -> Any:
        return ints(*(0 if t is None else TYPES[t.dtype] for t in self.tensors))

    @property
    def pointers(self) -> Any:
        addresses = [None if t is None else t.data_ptr() or None for t in self.tensors]
        return (ctypes.c_void_p * len(addresses))(*addresses)


def ints(*values: int) -> Any:
    return (ctypes.c_int32 * len(values))(*values)


def described(shapes: Sequence[Sequence[int]]) -> tuple[int, Any, Any]:
    """Number of tensors, numbers of axes, sizes in rows of 8."""
    sizes = [size for shape in shapes for size in (*shape, *[0] * (AXES - len(shape)))]
    return len(shapes), ints(*map(len, shapes)), (ctypes.c_int64 * len(sizes))(*sizes)


class Plugins:
    """The plugins of a library; `log` is what they said since it was asked last."""

    def __init__(self, harness: Path, library: Path) -> None:
        self.c = ctypes.CDLL(str(harness))
        for name in ("op", "namespace", "kind", "attribute", "log"):
            getattr(self.c, f"harness_{name}").restype = ctypes.c_char_p
        for name in ("create", "restored"):
            getattr(self.c, f"harness_{name}").restype = ctypes.c_void_p
        self.c.harness_workspace.restype = ctypes.c_int64
        count = self.c.harness_open(str(library).encode())
        assert count > 0, self.log()
        self.numbers = {self.c.harness_op(i).decode(): i for i in range(count)}

    def log(self) -> str:
        return str(self.c.harness_log().decode())

    def attributes(self, op: str) -> list[str]:
        names, i = [], self.numbers[op]
        while (name := self.c.harness_attribute(i, len(names))) is not None:
            names.append(name.decode())
        return names

    def create(self, op: str, attributes: Mapping[str, int]) -> Plugin | None:
        names = (ctypes.c_char_p * len(attributes))(*(name.encode() for name in attributes))
        values = ints(*attributes.values())
        number = self.numbers[op]
        pointer = self.c.harness_create(number, len(attributes), names, values)
        return Plugin(self, number, pointer) if pointer else None

    def of_case(self, op: str, inputs: Inputs) -> tuple[Plugin, list[Tensor | None]]:
        """The plugin and the tensors of one call of the op."""
        tensors, attributes = split_attributes(op, inputs)
        name = node_name(op, inputs)
        plugin = self.create(name, {k: attributes[k] for k in OPS[name].attributes})
        assert plugin is not None, self.log()
        return plugin, list(tensors.values())


@dataclass(frozen=True)
class Plugin:
    """One plugin object."""

    library: Plugins
    number: int
    pointer: int

    def __del__(self) -> None:
        self.library.c.harness_destroy(ctypes.c_void_p(self.pointer))

    def _call(self, name: str, *arguments: Any) -> int:
        function = getattr(self.library.c, f"harness_{name}")
        return int(function(ctypes.c_void_p(self.pointer), *arguments))

    def describes_itself(self) -> bool:
        return bool(
            self.library.c.harness_describes_itself(self.number, ctypes.c_void_p(self.pointer))
        )

    def restored(self) -> Plugin:
        """What is made of it when a serialized engine is loaded."""
        pointer = self.library.c.harness_restored(self.number, ctypes.c_void_p(self.pointer))
        assert pointer, self.library.log()
        return Plugin(self.library, self.number, pointer)

    def output_shape(
        self, shapes: Sequence[Sequence[int]], known: Sequence[Sequence[bool]] | None = None
    ) -> list[tuple[int, bool]] | None:
        """Sizes of the output and whether they are constants; None for an error.

        `known` says which sizes of the inputs are constants, by default none.
        """
        count, axes, sizes = described(shapes)
        flags = known or [[False] * len(shape) for shape in shapes]
        constant = ints(*(int(f) for row in flags for f in (*row, *[False] * (AXES - len(row)))))
        out, out_known = (ctypes.c_int64 * AXES)(), (ctypes.c_int32 * AXES)()
        rank = self._call("output_shape", count, axes, sizes, constant, out, out_known)
        return None if rank < 0 else [(out[i], bool(out_known[i])) for i in range(rank)]

    def output_type(self, tensors: Sequence[Tensor | None]) -> int:
        return self._call("output_type", len(tensors), Described(tensors).types)

    def supports(
        self, position: int, tensors: Sequence[Tensor | None], format_: int = LINEAR
    ) -> bool:
        """Whether tensor `position` may be as it is; the output is the last one."""
        described = Described(tensors)
        return bool(self._call("supports", position, *described.arrays, described.types, format_))

    def workspace(self, tensors: Sequence[Tensor | None]) -> int:
        """Bytes; -1 where the sizes contradict each other."""
        described = Described(tensors)
        return self._call("workspace", *described.arrays, described.types)

    def enqueue(
        self, tensors: Sequence[Tensor | None], y: Tensor, workspace: int | None, stream: int = 0
    ) -> int:
        """Fill y; returns 0 or what TensorRT would take for an error."""
        described, output = Described(tensors), Described([y])
        _, axes, sizes = output.arrays
        return self._call(
            "enqueue",
            *described.arrays,
            described.types,
            described.pointers,
            axes[0],
            sizes,
            output.types[0],
            ctypes.c_void_p(y.data_ptr()),
            ctypes.c_void_p(workspace),
            ctypes.c_void_p(stream),
        )

    def run(self, tensors: Sequence[Tensor | None], y: Tensor, stream: int = 0) -> None:
        """Fill y with a workspace of the size it asks for.

        Raises:
            AssertionError: an error, with what the plugin says.
        """
        bytes_ = self.workspace(tensors)
        assert bytes_ >= 0, self.library.log()
        workspace = torch.empty(max(bytes_, 16), dtype=torch.uint8, device=y.device)
        code = self.enqueue(tensors, y, workspace.data_ptr() if bytes_ else None, stream)
        assert code == 0, self.library.log()
