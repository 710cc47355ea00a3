"""What the tests of the custom ops share: cases, and a one-node ONNX model of a case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.export.passes.name_windows import name_windows
from deblur_export.export.passes.share_sampling_grid import share_sampling_grid
from deblur_export.plugins.ops import OPS
from deblur_export.target import TARGETS, TargetName
from tests.tolerances import OP_FLOAT32

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One call of an op.

    make(dtype) gives its arguments by name: tensors first, attributes after; those with a None
    value are optional inputs left out. `dense` is the definition, written with other building
    blocks than the op, and takes the same arguments. `call` is the torch op.
    """

    op: str
    name: str
    make: Callable[[torch.dtype], Inputs]
    call: Callable[..., Any]
    dense: Callable[..., Any]
    rank: int = 4
    float32: dict[str, float] = field(default_factory=lambda: OP_FLOAT32)

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def named(case: Case, *marks: pytest.MarkDecorator) -> Any:
    """A parameter of a test, with the case's name."""
    return pytest.param(case, id=str(case), marks=marks)


def first_quick(cases: Sequence[Case]) -> list[Any]:
    """Parameters of a test: the first case of each op, and the others marked as slow."""
    first = {case.op: case for case in reversed(cases)}
    return [named(case, *[pytest.mark.slow] * (case is not first[case.op])) for case in cases]


def rand(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def rounded(tensors: dict[str, Tensor], dtype: torch.dtype) -> Inputs:
    """Rounded to float32 first, so that every dtype computes the same case."""
    return {k: v.float().to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}


def blob_mask(n: int, h: int, w: int, coverage: float) -> Tensor:
    """Connected regions that touch the border; exactly empty at 0 and full at 1."""
    pooled = F.avg_pool2d(rand(n, 1, h + 4, w + 4, seed=7), 5, stride=1)
    if coverage == 1.0:
        return torch.ones_like(pooled)
    return (pooled > pooled.flatten().quantile(1 - coverage)).to(pooled)


def split_attributes(op: str, inputs: Inputs) -> tuple[Inputs, Inputs]:
    """(tensor arguments, attributes)."""
    names = OPS[op].attributes
    return (
        {k: v for k, v in inputs.items() if k not in names},
        {k: v for k, v in inputs.items() if k in names},
    )


def arrays(inputs: Inputs) -> dict[str, np.ndarray]:
    """What a session is fed with: tensors, and sizes as integers."""
    return {
        name: value.numpy() if isinstance(value, Tensor) else np.asarray(value, np.int64)
        for name, value in inputs.items()
        if value is not None
    }


def outputs_of(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs of an op, of which most have one."""
    return (result,) if isinstance(result, Tensor) else result


def output_type(declared: str) -> int:
    """ONNX type of an output of a float32 case."""
    return int(onnx.TensorProto.INT64 if "int64" in declared else onnx.TensorProto.FLOAT)


def model_of(case: Case, target: TargetName, inputs: Inputs) -> onnx.ModelProto:
    """One node of the op, its function attached, every dimension dynamic."""
    spec = OPS[case.op]
    tensors, attributes = split_attributes(case.op, inputs)
    given = arrays(tensors)
    node = onnx.helper.make_node(
        spec.name,
        [k if v is not None else "" for k, v in tensors.items()],
        list(spec.outputs),
        domain="deblur",
        **attributes,
    )
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "case",
        [
            info(k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), [None] * v.ndim)
            for k, v in given.items()
        ],
        [info(k, output_type(v.type), [None] * case.rank) for k, v in spec.outputs.items()],
    )
    opsets = [
        onnx.helper.make_opsetid("", TARGETS[target].opset),
        onnx.helper.make_opsetid("deblur", 1),
    ]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    if "share_sampling_grid" in TARGETS[target].passes:
        share_sampling_grid(model)
    name_windows(model)
    attach_functions(model, target)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto
