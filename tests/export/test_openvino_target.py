"""The form that OpenVINO runs best: the same values without transpositions or copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.export.passes.convolve_projections import convolve_projections
from deblur_export.export.passes.decompose_layer_norm import decompose_layer_norm
from deblur_export.export.passes.split_gates import split_gates
from tests.conftest import Exported, usual_options
from tests.tolerances import NETWORK_FLOAT32

torch.manual_seed(0)  # of the parameters of the networks below
Pass = Callable[[ir.Model], int]
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Norm(nn.Module):
    """LayerNorm over the channels; `kept` also returns what must stay in place."""

    def __init__(self, axis: int = -1, kept: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.axis, self.kept = axis, kept
        shape = (6,) if axis == -1 else (5, 6)
        self.weight = nn.Parameter(torch.rand(shape) + 0.5)
        self.bias = nn.Parameter(torch.randn(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(LAST)
        y = F.layer_norm(last, self.weight.shape, self.weight, self.bias, 1e-3)
        return y.permute(FIRST).exp() + (y.mean() if self.kept else 0)


class Gate(nn.Module):
    """Convolution, perhaps a depth-wise one after it, and the gate."""

    def __init__(self, depthwise: bool, kept: bool = False, groups: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, 10, 1)
        self.second = nn.Conv2d(10, 10, 3, padding=1, groups=groups, bias=False)
        self.depthwise, self.kept = depthwise, kept

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.depthwise:
            y = self.second(y)
        a, b = y.chunk(2, dim=1)
        return a * b.sigmoid() + (y.mean() if self.kept else 0)


class Projection(nn.Module):
    """A linear layer on [N, C, L] whose output is split unevenly."""

    def __init__(self, bias: bool, right: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, 6))
        self.bias = nn.Parameter(torch.randn(9, 1)) if bias else None
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        y = x.transpose(1, 2) @ self.weight.T if self.right else self.weight @ x
        y = y if self.bias is None else y + self.bias
        if self.right:
            return y
        a, b, c = y.split([4, 1, 4], dim=1)
        return a * b - c


def traced(net: nn.Module, x: Tensor) -> ir.Model:
    dim = torch.export.Dim
    shapes = ({2: dim("h", min=2), 3: dim("w", min=2)},)
    program = torch.onnx.export(
        net.eval(), (x,), dynamo=True, opset_version=18, dynamic_shapes=shapes, verbose=False
    )
    assert program is not None
    return program.model


def result(model: ir.Model, x: Tensor) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return np.asarray(session.run(None, {model.graph.inputs[0].name: x.numpy()})[0])


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    ("rewrite", "net", "gone"),
    [
        (decompose_layer_norm, Norm(), {"LayerNormalization", "Transpose"}),
        (decompose_layer_norm, Norm(bias=False), {"LayerNormalization", "Transpose"}),
        (split_gates, Gate(False), {"Split"}),
        (split_gates, Gate(True), {"Split"}),
        (convolve_projections, Projection(True), {"MatMul", "Split", "Add"}),
        (convolve_projections, Projection(False), {"MatMul", "Split"}),
    ],
)
def test_rewritten_graph_computes_the_same(rewrite: Pass, net: nn.Module, gone: set[str]) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 6, 7, 5) + 1
    model = traced(net, x)
    assert gone <= set(operators(model))
    assert rewrite(model) == 1
    assert gone.isdisjoint(operators(model))
    with torch.no_grad():
        expected = net(x).numpy()
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(result(model, x), expected, rtol=0, atol=2e-6 * max(scale, 1))


@pytest.mark.parametrize(
    ("rewrite", "net"),
    [
        (decompose_layer_norm, Norm(axis=2)),  # over width and channels
        (decompose_layer_norm, Norm(kept=True)),  # the normalized rows have another user
        (split_gates, Gate(False, kept=True)),  # the whole output has another user
        (split_gates, Gate(True, kept=True)),
        (split_gates, Gate(True, groups=5)),  # each filter reads two channels
        (convolve_projections, Projection(False, right=True)),  # the weight stands on the right
    ],
)
def test_what_does_not_fit_is_left_alone(rewrite: Pass, net: nn.Module) -> None:
    x = torch.randn(2, 6, 5, 5) if isinstance(net, Norm) else torch.randn(2, 6, 7, 5)
    if isinstance(net, Norm) and net.axis == 2:
        program = torch.onnx.export(net, (x,), dynamo=True, opset_version=18, verbose=False)
        assert program is not None
        model = program.model
    else:
        model = traced(net, x)
    before = operators(model)
    assert rewrite(model) == 0
    assert operators(model) == before


@pytest.mark.parametrize(
    "name", ["nafnet", "m2aenet", pytest.param("algnet", marks=pytest.mark.slow)]
)
def test_exported_for_openvino(exported: Exported, name: str) -> None:
    """No transposed normalization and no cut gate is left, and nothing that is not used."""
    portable, special = (
        ir.load(exported(name, options=usual_options(name, target)).path)
        for target in ("portable", "openvino")
    )
    norms, splits = (
        [operators(model).count(kind) for model in (portable, special)]
        for kind in ("LayerNormalization", "Split")
    )
    assert norms[1] < norms[0] / 2
    assert splits[1] < splits[0]
    assert all(value.uses() for value in special.graph.initializers.values())
    x = torch.rand(1, 3, 33, 47)
    np.testing.assert_allclose(result(special, x), result(portable, x), **NETWORK_FLOAT32)
