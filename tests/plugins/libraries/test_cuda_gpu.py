"""The CUDA kernels on a GPU: every case in every precision, long scans, streams, graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deblur_export.plugins.libraries import cpu, cuda
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.ops.pruned_conv import pruned_conv_reference
from deblur_export.plugins.ops.selective_scan import selective_scan
from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference
from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.spec import OpSpec
from tests.plugins.cases import CASES
from tests.plugins.cases import pruned_conv as pruned_cases
from tests.plugins.cases import selective_scan as scan_cases
from tests.plugins.harness import Case
from tests.plugins.libraries.test_cuda import ALL, error, is_float
from tests.tolerances import NATIVE_BFLOAT16, NATIVE_FLOAT16

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# float32 sums in another order than the CPU kernels', and the special function unit, whose powers
# of two are right to two units in the last place.
TOLERANCES = {
    torch.float32: 1e-5,
    torch.float16: NATIVE_FLOAT16,
    torch.bfloat16: NATIVE_BFLOAT16,
}


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the C functions that were called; the library must be there."""
    assert cuda.available(), "run: deblur-export plugins build --cuda"
    names: list[str] = []
    original = cuda._call

    def spy(spec: OpSpec, function: NativeFunction, *rest: Any) -> None:
        names.append(function.name)
        original(spec, function, *rest)

    monkeypatch.setattr(cuda, "_call", spy)
    return names


def on_gpu(inputs: dict[str, Any]) -> dict[str, Any]:
    return {k: v.cuda() if isinstance(v, Tensor) else v for k, v in inputs.items()}


def finite_in(case: Case, dtype: torch.dtype) -> bool:
    return dtype != torch.float16 or "scale-1e+06" not in case.name


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{case}-{str(dtype)[6:]}")
        for case in ALL
        for dtype in TOLERANCES
        if (case.op != "TopPixels" or dtype == torch.float32) and finite_in(case, dtype)
    ],
)
def test_equals_float64(case: Case, dtype: torch.dtype, calls: list[str]) -> None:
    inputs = case.make(dtype)
    y = case.call(**on_gpu(inputs))
    assert len(calls) == 1
    assert y.is_cuda
    same = {k: v.double() if is_float(v) else v for k, v in inputs.items()}
    assert error(y.cpu(), case.dense(**same)) < TOLERANCES[dtype]  # false for NaN


@pytest.mark.parametrize("shape", [(64, 32, 230_400), (64, 16, 57_601), (512, 32, 14_400)])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_long_scans(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    d, states, length = shape
    inputs = on_gpu(scan_cases.scan(1, d, states, length, step=-4.6)(dtype))
    exact = selective_scan_reference(
        **{k: v.double() if is_float(v) else v for k, v in inputs.items()}
    )
    y = selective_scan(**inputs)
    assert error(y.cpu(), exact.cpu()) < TOLERANCES[dtype]
    torch.testing.assert_close(selective_scan(**inputs), y, rtol=0, atol=0)  # no race


@pytest.mark.parametrize("coverage", [0.0, 0.02, 0.4, 1.0])
def test_large_pruned_conv(coverage: float) -> None:
    """More tiles than blocks, and several bands."""
    make = pruned_cases.pruned(2, 96, 360, 640, coverage)
    inputs = on_gpu(make(torch.float32))
    del inputs["group"]
    exact = pruned_conv_reference(**{k: v.double() for k, v in inputs.items()})
    y = cuda.compute(OPS["PrunedConv"], *inputs.values())
    assert error(y.cpu(), exact.cpu()) < TOLERANCES[torch.float32]
    again = cuda.compute(OPS["PrunedConv"], *inputs.values())
    torch.testing.assert_close(again, y, rtol=0, atol=0)


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_in_a_graph_on_a_stream_with_any_strides(op: str) -> None:
    """Captured once and replayed with other numbers, from tensors that are not dense."""
    case = next(c for c in CASES if c.op == op)
    inputs = on_gpu(case.make(torch.float32))
    expected = case.call(**inputs)
    strided = {
        k: v.transpose(0, -1).contiguous().transpose(0, -1) if isinstance(v, Tensor) else v
        for k, v in inputs.items()
    }
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        case.call(**strided)
    torch.cuda.current_stream().wait_stream(side)
    kept = {k: v.clone() for k, v in strided.items() if is_float(v)}
    for k in kept:
        strided[k].zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = case.call(**strided)
    for k, v in kept.items():
        strided[k].copy_(v)
    graph.replay()
    torch.testing.assert_close(y, expected, rtol=0, atol=0)


def test_the_reference_stays_the_reference(calls: list[str]) -> None:
    """float64, and inside switched_off: PyTorch computes."""
    case = next(c for c in CASES if c.op == "SelectiveScan")
    case.call(**on_gpu(case.make(torch.float64)))
    with cpu.switched_off():
        case.call(**on_gpu(case.make(torch.float32)))
    assert calls == []


def test_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too small a workspace stops the call before it is queued."""
    monkeypatch.setattr(cuda, "_workspace", lambda *_: torch.empty(0, device="cuda"))
    with pytest.raises(RuntimeError, match="workspace"):
        cuda.compute(OPS["LocalMean3"], torch.ones(1, 1, 4, 4, device="cuda"))
