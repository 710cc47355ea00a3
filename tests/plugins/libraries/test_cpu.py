"""The native CPU kernels: every case on every instruction set, odd sizes and strange values."""

from __future__ import annotations

import contextlib
import ctypes
import math
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deblur_export.models.checkpoint import load_model
from deblur_export.plugins.compile import cpu as cpu_compiler
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.ops import OPS as SPECS
from deblur_export.plugins.ops.deform_conv2d import (
    deform_conv2d,
    deform_conv2d_at,
    deform_conv2d_reference,
)
from deblur_export.plugins.ops.motion_deform_conv import SPEC as MOTION_DEFORM_CONV
from deblur_export.plugins.ops.motion_deform_conv import (
    motion_deform_conv,
    motion_deform_conv_reference,
)
from deblur_export.plugins.ops.pruned_conv import pruned_conv, pruned_conv_reference
from deblur_export.plugins.ops.selective_scan import selective_scan
from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference
from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.spec import OpSpec
from tests import needs
from tests.plugins.cases import NATIVE as CASES
from tests.plugins.cases import deform_conv2d as deform_cases
from tests.plugins.cases import motion_deform_conv as motion_cases
from tests.plugins.cases import pruned_conv as pruned_cases
from tests.plugins.cases import selective_scan as scan_cases
from tests.plugins.harness import Case, rand
from tests.plugins.native_functions import (
    CPU,
    POINTER,
    cpu_library,
    fitting,
    is_attribute,
    sizes_of,
)
from tests.tolerances import NATIVE_FLOAT32

OPS = tuple(name for name, spec in SPECS.items() if spec.torch_on_cpu)

needed = needs.kernels


def test_built_where_there_is_a_compiler() -> None:
    """What else would be skipped here must not be skipped unseen."""
    if not any(map(shutil.which, cpu_compiler.COMPILERS)):
        pytest.skip(needs.COMPILER.reason)
    assert cpu.available(), "run: deblur-export plugins build"


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test on each instruction set that this machine has."""
    monkeypatch.setenv("DEBLUR_ISA", request.param)
    if cpu.instruction_set() != request.param:
        pytest.skip(f"this machine or library has no {request.param}")
    return str(request.param)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the C functions that were called."""
    names: list[str] = []
    original = cpu._call

    def spy(spec: OpSpec, function: NativeFunction, *rest: Any) -> None:
        names.append(function.name)
        original(spec, function, *rest)

    monkeypatch.setattr(cpu, "_call", spy)
    return names


@pytest.fixture(
    params=[pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(13, marks=pytest.mark.slow)]
)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def assert_near(y: Tensor, exact: Tensor) -> None:
    assert y.shape == exact.shape
    assert y.dtype == torch.float32
    if exact.numel():
        error = (y - exact).abs().max() / exact.abs().max()
        assert error < NATIVE_FLOAT32  # false for NaN


# Sizes around the widths of vectors, tiles and blocks; long enough for chunks of the sequence.
SCANS = {
    "odd": scan_cases.scan(1, 17, 9, 131),
    "wide": scan_cases.scan(2, 33, 1, 65, z=False),
    "chunks": scan_cases.scan(1, 3, 11, 901, step=-4.6),
    "chunks-slow": scan_cases.scan(1, 1, 2, 900, rate=1e-6, step=-3.0),
}
MOTIONS = {
    "odd-channels": motion_cases.deform(1, 37, 3, 5, 1.5),
    "wide": motion_cases.deform(1, 70, 2, 67, 2.0),
    "high": motion_cases.deform(2, 1, 19, 3, 2.0),
    "gated-odd": motion_cases.deform(2, 74, 5, 3, 1.5, gate=1),
    "a-pair": motion_cases.deform(1, 2, 1, 67, 1.5, gate=1),
}
DEFORMS = {
    "odd": deform_cases.deform(1, 19, 5, 11, 3),
    "wide": deform_cases.deform(1, 36, 1, 70, 3),
}
PRUNED = {
    "odd": pruned_cases.pruned(1, 37, 5, 71, 0.5),
    "full": pruned_cases.pruned(2, 17, 3, 70, 1.0),
    "one-row": pruned_cases.pruned(1, 33, 1, 9, 0.4),
    "bands": pruned_cases.pruned(1, 1, 560, 500, 0.97),  # more than is held at a time
}
ODD = [
    Case(op, name, make, call, definition)
    for op, table, call, definition in (
        ("SelectiveScan", SCANS, selective_scan, scan_cases.sequential),
        ("MotionDeformConv", MOTIONS, motion_deform_conv, motion_cases.tent_deform),
        ("DeformConv2d", DEFORMS, deform_conv2d, deform_cases.tent_deform),
        ("PrunedConv", PRUNED, pruned_conv, pruned_cases.dense),
    )
    for name, make in table.items()
]


@needed
@pytest.mark.parametrize("case", [c for c in [*CASES, *ODD] if c.op in OPS], ids=str)
def test_equals_float64(case: Case, isa: str, threads: int, calls: list[str]) -> None:
    y = case.call(**case.make(torch.float32))
    assert len(calls) == 1
    assert_near(y, case.dense(**case.make(torch.float64)))


@needed
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e9, -1e30, 1e-40])
def test_strange_offsets_do_what_the_reference_does(value: float, isa: str) -> None:
    inputs = motion_cases.deform(1, 3, 4, 6, 1.0)(torch.float32)
    inputs["offset"][0, 7, 2, 3] = value
    inputs["offset"][0, 10, 0, 0] = value
    del inputs["group"], inputs["gate"]
    tolerance = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
    exact = motion_deform_conv_reference(**inputs)
    assert exact.isnan().sum() == (0 if abs(value) < 1e38 else 6)
    torch.testing.assert_close(motion_deform_conv(**inputs, group=3), exact, **tolerance)

    inputs = deform_cases.listed(1, 3, 4, 6, 5, 9)(torch.float32)
    inputs["offset"][0, 31, 2] = value
    kernel = inputs.pop("kernel")
    exact = deform_conv2d_reference(**inputs)
    torch.testing.assert_close(deform_conv2d_at(**inputs, kernel=kernel), exact, **tolerance)


@needed
@pytest.mark.parametrize("number", [-1, 24, 10**6, 2**62, -(2**62)])
def test_listed_pixels_outside_the_image_read_zeros(number: int) -> None:
    inputs = deform_cases.listed(1, 3, 4, 6, 5, 9, 0.0)(torch.float32)
    inputs["index"][0, 4] = number
    kernel = inputs.pop("kernel")
    exact = deform_conv2d_reference(**inputs)
    torch.testing.assert_close(
        deform_conv2d_at(**inputs, kernel=kernel), exact, rtol=1e-5, atol=1e-5
    )


@needed
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z"])
def test_nan_in_a_scan_goes_where_the_reference_lets_it_go(name: str, isa: str) -> None:
    inputs = scan_cases.scan(1, 3, 4, 90)(torch.float32)
    inputs[name][0, 1, 40] = math.nan
    exact = selective_scan_reference(**inputs)
    assert exact.isnan().any()
    torch.testing.assert_close(
        selective_scan(**inputs), exact, rtol=1e-4, atol=1e-4, equal_nan=True
    )


@needed
def test_extreme_steps_and_rates_leave_no_nan(isa: str) -> None:
    inputs = scan_cases.scan(1, 3, 4, 90, z=False, bias=False, softplus=0)(torch.float32)
    inputs["A"] = torch.full_like(inputs["A"], -1e30)
    inputs["delta"][:, :, ::7] = 1e20
    inputs["u"] *= 1e-20
    torch.testing.assert_close(selective_scan(**inputs), selective_scan_reference(**inputs))


@needed
def test_nan_in_a_mask_is_no_mask() -> None:
    inputs = pruned_cases.pruned(1, 3, 5, 6, 0.4)(torch.float32)
    inputs["mask"][0, 0, 2, 2] = math.nan
    del inputs["group"]
    torch.testing.assert_close(
        pruned_conv(**inputs, group=6), pruned_conv_reference(**inputs), rtol=1e-5, atol=1e-5
    )


@needed
@pytest.mark.parametrize("op", OPS)
def test_only_for_float32(op: str, calls: list[str]) -> None:
    case = next(c for c in CASES if c.op == op)
    for dtype in (torch.float64, torch.bfloat16):
        case.call(**case.make(dtype))
    assert calls == []


@needed
@pytest.mark.parametrize("op", ["SelectiveScan", "MotionDeformConv", "DeformConv2d"])
def test_gradients_are_those_of_the_definition(op: str, calls: list[str]) -> None:
    case = next(c for c in CASES if c.op == op)
    grads = []
    for context in (contextlib.nullcontext(), cpu.switched_off()):
        inputs = case.make(torch.float32)
        wanted = [v.requires_grad_() for v in inputs.values() if isinstance(v, Tensor)]
        with context:
            grads.append(torch.autograd.grad((case.call(**inputs) ** 2).sum(), wanted))
    assert len(calls) == 1
    for candidate, reference in zip(*grads, strict=True):
        torch.testing.assert_close(candidate, reference, rtol=1e-4, atol=1e-4)


@needed
@pytest.mark.parametrize(("name", "times"), [("m2aenet", 12), ("algnet", 9), ("saphn", 12)])
def test_a_network_as_it_was_loaded_uses_them(name: str, times: int, calls: list[str]) -> None:
    """Its parameters ask for gradients, as those of every module do."""
    net = load_model(name, "tiny", "random:0").net
    assert all(p.requires_grad for p in net.parameters())
    for context in (torch.no_grad(), torch.inference_mode()):
        calls.clear()
        with context:
            net(torch.rand(1, 3, 32, 32))
        assert len(calls) == times


@needed
@pytest.mark.parametrize("op", OPS)
def test_any_strides(op: str, calls: list[str]) -> None:

    case = next(c for c in CASES if c.op == op)
    inputs = case.make(torch.float32)
    strided = {
        k: v.transpose(0, -1).contiguous().transpose(0, -1) if isinstance(v, Tensor) else v
        for k, v in inputs.items()
    }
    torch.testing.assert_close(case.call(**strided), case.call(**inputs), rtol=0, atol=0)
    assert len(calls) == 2


@needed
def test_threads_of_the_runtime() -> None:
    """A host's own parallel loop: here one thread that takes the tasks from the last on."""
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    seen = []

    def run(runtime: int, tasks: int, task: Callable[..., None], data: int) -> None:
        seen.append((runtime, tasks))
        for index in reversed(range(tasks)):
            task(data, index)

    loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, body, ctypes.c_void_p)(run)
    threads = cpu._Threads(4, ctypes.cast(loop, ctypes.c_void_p), 7)
    inputs = list(motion_cases.deform(1, 5, 6, 7, 1.0)(torch.float32).values())[:4]
    x, offset, weight, bias = (tensor.data_ptr() for tensor in inputs)
    library, y = cpu_library(), torch.full((1, 5, 6, 7), math.nan)
    code = library.deblur_motion_deform_conv(
        0, x, offset, None, weight, bias, y.data_ptr(), 1, 5, 6, 7, 0, ctypes.byref(threads)
    )
    assert code == 0
    assert seen and all(runtime == 7 and tasks > 1 for runtime, tasks in seen)
    torch.testing.assert_close(y, cpu.compute(MOTION_DEFORM_CONV, *inputs), rtol=0, atol=0)


@needed
def test_plan_shared_by_layers() -> None:
    """The samples found once serve several calls."""
    inputs = motion_cases.deform(2, 5, 6, 7, 1.0)(torch.float32)
    x, offset, weight, bias = list(inputs.values())[:4]
    library, y = cpu_library(), torch.empty_like(x)
    library.deblur_motion_plan_bytes.restype = ctypes.c_int64
    sizes = [ctypes.c_int64(size) for size in (2, 6, 7)]
    plan = ctypes.create_string_buffer(library.deblur_motion_plan_bytes(*sizes))
    assert library.deblur_motion_plan(ctypes.c_void_p(offset.data_ptr()), plan, *sizes, None) == 0
    for factor in (1.0, 2.0):
        scaled = factor * x
        pointers = [t.data_ptr() for t in (scaled, weight, bias, y)]
        assert not library.deblur_motion_deform_conv(
            0, pointers[0], None, ctypes.addressof(plan), *pointers[1:], *x.shape, 0, None
        )
        expected = cpu.compute(MOTION_DEFORM_CONV, scaled, offset, weight, bias)
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert library.deblur_motion_plan_bytes(*(ctypes.c_int64(2**40) for _ in range(3))) < 0


@needed
@settings(max_examples=160, deadline=None)
@given(
    position=st.sampled_from([(k, size) for k, call in CPU.items() for size in sizes_of(*call)]),
    value=st.one_of(st.integers(-(2**63), -1), st.integers(2**47, 2**63 - 1)),
)
def test_sizes_out_of_range_are_refused(position: tuple[str, str], value: int) -> None:
    """One size of a fitting call, with pointers that must not be followed."""
    name, argument = position
    spec, function = CPU[name]
    wrong = value % 2**31 + 400 if is_attribute(function, argument) else value
    call = fitting(spec, function, **{argument: wrong})
    assert getattr(cpu_library(), name)(*call.values()) in (1, 3)


@needed
def test_missing_tensors_and_attributes_are_refused() -> None:
    library = cpu_library()

    def code(name: str, pointer: int | None = POINTER, **others: int | None) -> Any:
        call = fitting(*CPU[name], pointer, **others)
        return getattr(library, name)(*call.values())

    for name in CPU:
        assert code(name, None) == 2, name
    for name in ("deblur_motion_deform_conv", "deblur_pruned_conv"):
        assert code(name, None, n=0, c=0, h=0, w=0) == 0
        assert code(name, layout=3) == 3
    assert code("deblur_selective_scan", delta_softplus=2) == 3
    assert code("deblur_selective_scan", length=0) == 1
    assert code("deblur_deform_conv2d", kernel=4) == 3
    assert code("deblur_motion_deform_conv", gate=2) == 3
    assert code("deblur_motion_deform_conv", c=3, gate=1) == 1
    texts = {library.deblur_error_text(code_) for code_ in range(6)}
    assert len(texts) == 6


small = st.integers(0, 4)
shapes = st.lists(small, min_size=1, max_size=4)


@needed
@settings(max_examples=150, deadline=None)
@given(data=st.data(), op=st.sampled_from(OPS))
def test_any_shapes_are_computed_or_refused(data: st.DataObject, op: str) -> None:
    """One tensor of a fitting call gets another shape, perhaps its own."""
    case = data.draw(st.sampled_from([c for c in CASES if c.op == op]))
    inputs = case.make(torch.float32)
    name = data.draw(st.sampled_from([k for k, v in inputs.items() if isinstance(v, Tensor)]))
    shape = data.draw(shapes)
    tensor = torch.zeros(shape, dtype=inputs[name].dtype)
    fits = tensor.shape == inputs[name].shape
    inputs[name] = tensor
    try:
        y = case.call(**inputs)
    except ValueError:
        assert not fits
        return
    assert y.isfinite().all()


@needed
def test_empty_batches() -> None:
    x, none = rand(0, 3, 4, 5).float(), torch.zeros(0, 18, 4, 5)
    y = motion_deform_conv(x, none, torch.ones(3, 1, 3, 3), torch.ones(3), group=3)
    assert y.shape == (0, 3, 4, 5)
    weights = torch.ones(6, 3, 1, 1), torch.ones(6), torch.ones(6, 1, 3, 3), torch.ones(6)
    y = pruned_conv(torch.ones(1, 3, 0, 5), torch.ones(1, 1, 0, 5), *weights, group=6)
    assert y.shape == (1, 3, 0, 5)
