"""SelectiveScan: gradients, memory, dtypes, divisions into chunks, and a million steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from deblur_export.export.passes.attach_functions import attach_functions
from deblur_export.plugins.ops import selective_scan_bodies as bodies
from deblur_export.plugins.ops import selective_scan_reference as reference
from deblur_export.plugins.ops.selective_scan import SPEC, selective_scan
from deblur_export.target import TARGETS, TargetName
from tests.plugins.cases.selective_scan import scan, sequential
from tests.plugins.harness import Case, Inputs, model_of
from tests.tolerances import OP_FLOAT32, OP_FLOAT64


def run_onnx(make: Any, target: TargetName) -> np.ndarray:
    inputs = make(torch.float32)
    case = Case("SelectiveScan", "", make, selective_scan, sequential, rank=3)
    proto = model_of(case, target, inputs).SerializeToString()
    session = ort.InferenceSession(proto, providers=["CPUExecutionProvider"])
    feed = {k: v.numpy() for k, v in inputs.items() if isinstance(v, Tensor)}
    return session.run(None, feed)[0]  # type: ignore[no-any-return]


def tensors_of(inputs: Inputs) -> dict[str, Tensor]:
    return {k: v for k, v in inputs.items() if isinstance(v, Tensor)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"z": False},
                {"bias": False},
                {"softplus": 0, "z": False, "bias": False},
            )
        ),
    ],
    ids=str,
)
def test_gradients(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of five steps and in one piece."""
    inputs = scan(2, 3, 2, 7, **options)(torch.float64)
    tensors = {k: v.requires_grad_() for k, v in tensors_of(inputs).items()}

    def call(*values: Tensor) -> Tensor:
        return selective_scan(**(inputs | dict(zip(tensors, values, strict=True))))

    assert torch.autograd.gradcheck(call, tuple(tensors.values()))
    monkeypatch.setattr(reference, "SEGMENT", 5 * 2 * 3 * 2)
    assert torch.autograd.gradcheck(call, tuple(tensors.values()))


def test_gradients_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = scan(2, 3, 4, 100)(torch.float64)
    grads = []
    for steps in (1, 7, 50, 100):
        monkeypatch.setattr(reference, "SEGMENT", steps * 2 * 3 * 4)
        tensors = {k: v.clone().requires_grad_() for k, v in tensors_of(inputs).items()}
        y = selective_scan(**(inputs | tensors))
        grads.append(torch.autograd.grad(y.square().sum(), list(tensors.values())))
    for others in grads[1:]:
        for grad, other in zip(grads[0], others, strict=True):
            torch.testing.assert_close(grad, other, **OP_FLOAT64)


def test_opcheck_with_gradients() -> None:
    inputs = scan(1, 2, 2, 4)(torch.float32)
    softplus = inputs.pop("delta_softplus")
    tensors = tuple(v.requires_grad_() for v in inputs.values())
    torch.library.opcheck(selective_scan, tensors, {"delta_softplus": softplus})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_keeps_its_state_in_float32(dtype: torch.dtype) -> None:
    inputs = scan(1, 4, 8, 500, step=-5.0)(dtype)
    exact = selective_scan(**(inputs | {k: v.double() for k, v in tensors_of(inputs).items()}))
    y = selective_scan(**inputs)
    assert y.dtype == dtype
    assert exact.dtype == torch.float64
    torch.testing.assert_close(y, exact.to(dtype))


def test_strided_inputs() -> None:
    """The parts of one projection, as Mamba passes them."""
    inputs = scan(2, 4, 4, 30)(torch.float64)
    expected = selective_scan(**inputs)
    joined = torch.cat([inputs["u"], inputs["z"], inputs["B"], inputs["C"]], dim=1)
    u, z, b, c = joined.split(4, dim=1)
    transposed = inputs["delta"].transpose(1, 2).contiguous().transpose(1, 2)
    y = selective_scan(**(inputs | {"u": u, "z": z, "B": b, "C": c, "delta": transposed}))
    assert y.is_contiguous()
    assert torch.equal(y, expected)


class Largest(TorchDispatchMode):  # type: ignore[misc]
    """Remembers the size of the largest tensor that an operator returns."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_memory_is_linear_in_length_without_the_states() -> None:
    n, d, s, length = 1, 4, 16, 4096
    with torch.no_grad(), Largest() as largest:
        reference.selective_scan_reference(**scan(n, d, s, length)(torch.float32))
    assert largest.values <= 1.1 * n * s * length


@pytest.mark.parametrize("chunks", [1, 2, 7, 64, 300, 1000])
@pytest.mark.parametrize("batch", [1, 3])
def test_two_levels_in_any_division(
    chunks: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = scan(batch, 3, 4, 300, step=-2.0)
    monkeypatch.setattr(bodies, "STATE", 10**9)
    monkeypatch.setattr(bodies, "CHUNKS", chunks)
    expected = sequential(**make(torch.float64)).numpy()
    np.testing.assert_allclose(run_onnx(make, "portable"), expected, **OP_FLOAT32)


@pytest.mark.parametrize("states", [1, 100, 1000])
def test_two_levels_bounded_by_the_state(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make = scan(2, 3, 4, 100, step=-2.0)
    monkeypatch.setattr(bodies, "STATE", states)
    expected = sequential(**make(torch.float64)).numpy()
    np.testing.assert_allclose(run_onnx(make, "portable"), expected, **OP_FLOAT32)


HALF = """<ir_version: 10, opset_import: ["": 18, "deblur": 1]>
half (float16[N, D, L] u, float16[N, D, L] delta, float16[D, S] A, float16[N, S, L] B,
      float16[N, S, L] C, float16[D] D, float16[N, D, L] z, float16[D] delta_bias)
    => (float16[N, D, L] y)
{ y = deblur.SelectiveScan<delta_softplus = 1>(u, delta, A, B, C, D, z, delta_bias) }"""


@pytest.mark.parametrize("target", ["portable", "rtx"])
def test_bodies_keep_a_float32_state_in_half_precision(target: TargetName) -> None:
    inputs = tensors_of(scan(1, 4, 8, 300, step=-5.0)(torch.float16))
    model = ir.from_proto(onnx.parser.parse_model(HALF))
    attach_functions(model, target)
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {k: v.numpy() for k, v in inputs.items()})
    exact = selective_scan(**{k: v.double() for k, v in inputs.items()}, delta_softplus=1)
    torch.testing.assert_close(torch.from_numpy(y), exact.half())


def test_nodes_of_one_graph_leave_out_the_same_inputs() -> None:
    text = HALF.replace("z, delta_bias) }", "z, delta_bias)\n  w = deblur.SelectiveScan(u) }")
    model = ir.from_proto(onnx.parser.parse_model(text))
    with pytest.raises(ValueError, match="same optional inputs"):
        attach_functions(model, "portable")


def test_products_are_counted() -> None:
    with FlopCounterMode(display=False) as counter:
        selective_scan(**scan(2, 3, 5, 7)(torch.float32))
    assert counter.get_total_flops() == 2 * (2 * 3 * 7) * (4 * 5 + 3)


@pytest.mark.parametrize("name", ["delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    inputs = scan(2, 3, 4, 5)(torch.float32)
    inputs[name] = inputs[name][:-1]
    with pytest.raises(ValueError, match=rf"^SelectiveScan: {name} is "):
        selective_scan(**inputs)


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        selective_scan(**scan(1, 2, 2, 0)(torch.float32))


@pytest.mark.parametrize("target", TARGETS)
def test_a_body_reads_the_given_inputs_only(target: TargetName) -> None:
    assert SPEC.specialize is not None
    function = SPEC.specialize(TARGETS[target], frozenset({"z"}))
    gate = function.inputs[list(SPEC.inputs).index("z")]
    assert gate.name == "z"
    assert not list(gate.uses())


def test_only_the_portable_body_has_loops() -> None:
    def ops(target: TargetName) -> set[str]:
        assert SPEC.body is not None
        return {node.op_type for node in SPEC.body(TARGETS[target]).graph.all_nodes()}

    assert ops("rtx").isdisjoint({"Scan", "Loop", "If", "MatMul", "CumSum", "NonZero"})
    assert "Scan" in ops("portable")


@pytest.mark.slow
def test_a_million_steps() -> None:
    make = scan(1, 2, 4, 1_000_000, step=-4.6)
    v = {k: x.numpy() if isinstance(x, Tensor) else x for k, x in make(torch.float64).items()}
    delta = np.logaddexp(0, v["delta"][0] + v["delta_bias"][:, None])
    h, exact = np.zeros((2, 4)), np.empty((2, 1_000_000))
    for t in range(exact.shape[1]):
        x = delta[:, t] * v["u"][0, :, t]
        h = np.exp(delta[:, t, None] * v["A"]) * h + x[:, None] * v["B"][0, :, t]
        exact[:, t] = h @ v["C"][0, :, t]
    exact += v["D"][:, None] * v["u"][0]
    exact *= v["z"][0] / (1 + np.exp(-v["z"][0]))
    torch.testing.assert_close(
        selective_scan(**make(torch.float64))[0], torch.from_numpy(exact), **OP_FLOAT64
    )
    for target in ("portable", "rtx"):
        np.testing.assert_allclose(run_onnx(make, target)[0], exact, **OP_FLOAT32)
    np.testing.assert_allclose(selective_scan(**make(torch.float32))[0], exact, **OP_FLOAT32)
