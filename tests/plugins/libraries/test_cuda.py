"""The CUDA kernels, on the processor: every index, barrier and border, but not the GPU.

csrc/emulation/launch.h runs the same source thread by thread; test_cuda_gpu.py runs it on a GPU.
"""

from __future__ import annotations

import ctypes
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deblur_export.plugins.libraries import cpu, cuda
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.ops.deform_conv2d import deform_conv2d, deform_conv2d_reference
from deblur_export.plugins.ops.motion_deform_conv import (
    motion_deform_conv,
    motion_deform_conv_reference,
    sampling_grids,
)
from deblur_export.plugins.ops.pixel_rows import PIXEL_GATHER, PIXEL_SCATTER, pixel_gather
from deblur_export.plugins.ops.pruned_conv import pruned_conv, pruned_conv_reference
from deblur_export.plugins.ops.selective_scan import selective_scan
from deblur_export.plugins.ops.selective_scan_reference import selective_scan_reference
from deblur_export.plugins.parameters import NativeFunction
from deblur_export.plugins.spec import OpSpec
from tests import needs
from tests.plugins import emulation
from tests.plugins.cases import NATIVE as CASES
from tests.plugins.cases import deform_conv2d as deform_cases
from tests.plugins.cases import motion_deform_conv as motion_cases
from tests.plugins.cases import pixel_rows as pixel_cases
from tests.plugins.cases import pruned_conv as pruned_cases
from tests.plugins.cases import selective_scan as scan_cases
from tests.plugins.harness import Case, Inputs, rand, split_attributes
from tests.plugins.libraries.test_cpu import ODD
from tests.plugins.native_functions import (
    CUDA,
    POINTER,
    WORKSPACES,
    declare_cuda,
    fitting,
    is_attribute,
    sizes_of,
)
from tests.tolerances import NATIVE_BFLOAT16, NATIVE_FLOAT16, NATIVE_FLOAT32

pytestmark = [
    needs.compiler,
    pytest.mark.skipif(sys.platform != "linux", reason="no fibers on this system"),
]
GUARD = 4096  # bytes

# Around the sizes of blocks, warps and tiles: more chunks than are carried at a time, both counts
# of states per thread, and a scan in one phase, which the emulation chooses from 4096 states on.
SCANS = {
    "many-chunks": scan_cases.scan(1, 2, 3, 2200, step=-4.6),
    "channels": scan_cases.scan(1, 33, 9, 130),
    "33-states": scan_cases.scan(1, 3, 33, 131),
    "64-states": scan_cases.scan(2, 2, 64, 257, step=-2.0),
    "one-phase": scan_cases.scan(1, 130, 32, 140, step=-3.0),
}
MOTIONS = {
    "two-groups": motion_cases.deform(1, 134, 3, 13, 2.0),
    "two-groups-gated": motion_cases.deform(1, 262, 3, 12, 2.0, gate=1),
}
# More columns and more rows than one tile of a product has.
DEFORMED, PRUNED = deform_cases.deform(1, 132, 4, 18, 3), pruned_cases.pruned(1, 66, 6, 31, 0.5)
WIDE = [
    *(
        Case("SelectiveScan", k, make, selective_scan, scan_cases.sequential)
        for k, make in SCANS.items()
    ),
    *(
        Case("MotionDeformConv", k, make, motion_deform_conv, motion_cases.tent_deform)
        for k, make in MOTIONS.items()
    ),
    Case("DeformConv2d", "tiles", DEFORMED, deform_conv2d, deform_cases.tent_deform),
    Case("PrunedConv", "tiles", PRUNED, pruned_conv, pruned_cases.dense),
]
# "bands" is for the memory of the CPU kernel; the emulation makes bands of the small cases.
ALL = [*CASES, *WIDE, *(case for case in ODD if case.name != "bands")]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    return declare_cuda(cuda.load(emulation.build(shared / "emulated")))


@pytest.fixture
def emulated(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The functions of libraries/cuda.py compute tensors of the processor."""
    monkeypatch.setattr(cuda, "_library", lambda: library)
    yield library
    emulation.backwards(library).value = 0


@pytest.fixture
def guarded_workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Behind each workspace lie bytes that nobody may change."""
    made: list[tuple[Tensor, int]] = []
    original = cuda._workspace

    def workspace(*arguments: Any) -> Tensor:
        count = original(*arguments).numel()
        made.append((torch.full((count + GUARD,), 0xFF, dtype=torch.uint8), count))
        return made[-1][0][:count]

    monkeypatch.setattr(cuda, "_workspace", workspace)
    yield
    assert all((memory[count:] == 0xFF).all() for memory, count in made)


def guarded(tensor: Any) -> Any:
    """The same numbers between others that spoil a result (NaN, or pixel indices far outside),
    aligned to no more than an element."""
    if not isinstance(tensor, Tensor):
        return tensor
    edge = GUARD // tensor.element_size() + 1
    bad = math.nan if tensor.is_floating_point() else 2**40
    memory = torch.full((tensor.numel() + 2 * edge,), bad, dtype=tensor.dtype)
    inside = memory[edge : edge + tensor.numel()].view(tensor.shape)
    return inside.copy_(tensor)


def error(y: Tensor, exact: Tensor) -> float:
    """Largest error of the result, relative to the largest output."""
    assert y.shape == exact.shape
    if y.numel() == 0:
        return 0.0
    return float((y.double() - exact).abs().max() / exact.double().abs().max().clamp(min=1e-30))


@pytest.mark.usefixtures("guarded_workspace")
@pytest.mark.parametrize("case", ALL, ids=str)
def test_equals_float64(case: Case, emulated: ctypes.CDLL) -> None:
    inputs = {k: guarded(v) for k, v in case.make(torch.float32).items()}
    exact = case.dense(**case.make(torch.float64))
    results = []
    for order in (0, 1):
        emulation.backwards(emulated).value = order
        results.append(emulation.call(case, inputs))
    assert error(results[0], exact) < NATIVE_FLOAT32  # false for NaN
    # No thread reads what another one writes without a barrier in between.
    torch.testing.assert_close(*results, rtol=0, atol=0)


# Their products are another code in half precision, so that every case is computed in it.
TENSOR_CORES = {"DeformConv2d", "DeformConv2dAt", "PrunedConv"}
CHOSEN = {
    "SelectiveScan-batch",
    "MotionDeformConv-gated",
    "MotionDeformConv-wide",
    "DynamicFilter5-2x3x7x11-scale-1",
    "LocalMean-13x30-window-12",
    "PixelGather-unfold",
    "PixelScatter-some",
}
# Of every other op that has a low precision, the first case.
TYPED = {name for name, spec in OPS.items() if any(t.type == "T" for t in spec.inputs.values())}
OTHERS = TYPED - TENSOR_CORES - {name.split("-")[0] for name in CHOSEN}
HALVES = CHOSEN | {
    str(case) for case in {case.op: case for case in reversed(CASES)}.values() if case.op in OTHERS
}


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, NATIVE_FLOAT16), (torch.bfloat16, NATIVE_BFLOAT16)],
    ids=["float16", "bfloat16"],
)
@pytest.mark.parametrize(
    "case",
    [c for c in ALL if str(c) in HALVES or (c.op in TENSOR_CORES and "1e+06" not in c.name)],
    ids=str,
)
@pytest.mark.usefixtures("guarded_workspace")
def test_low_precision_rounds_only_at_its_border(
    case: Case, dtype: torch.dtype, tolerance: float, emulated: ctypes.CDLL
) -> None:
    inputs = case.make(dtype)
    results = []
    for order in (0, 1):
        emulation.backwards(emulated).value = order
        results.append(emulation.call(case, {k: guarded(v) for k, v in inputs.items()}))
    assert results[0].dtype == dtype
    same = {k: v.double() if is_float(v) else v for k, v in inputs.items()}
    assert error(results[0], case.dense(**same)) < tolerance
    torch.testing.assert_close(*results, rtol=0, atol=0)


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def test_every_op_is_tested_in_low_precision() -> None:
    assert len([c for c in ALL if str(c) in HALVES]) == len(HALVES)
    tested = {case.split("-")[0] for case in HALVES} | TENSOR_CORES
    assert tested == {case.op for case in CASES} & TYPED


@pytest.mark.usefixtures("emulated")
def test_sampling_grid() -> None:
    offset = rand(2, 18, 5, 7).float()
    expected = sampling_grids(offset.double()).transpose(0, 1)
    torch.testing.assert_close(
        cuda.compute(OPS["SamplingGrid"], offset).double(), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e9, -1e30, 1e-40])
def test_strange_offsets_do_what_the_reference_does(value: float) -> None:
    inputs = motion_cases.deform(1, 3, 4, 6, 1.0)(torch.float32)
    inputs["offset"][0, 7, 2, 3] = value
    inputs["offset"][0, 10, 0, 0] = value
    names = ("x", "offset", "weight", "bias")
    tensors = [inputs[name] for name in names]
    tolerance = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
    exact = motion_deform_conv_reference(*tensors)
    torch.testing.assert_close(cuda.compute(OPS["MotionDeformConv"], *tensors), exact, **tolerance)

    inputs = deform_cases.listed(1, 3, 4, 6, 5, 9)(torch.float32)
    inputs["offset"][0, 31, 2] = value
    kernel = inputs.pop("kernel")
    exact = deform_conv2d_reference(**inputs)
    y = cuda.compute(OPS["DeformConv2dAt"], *inputs.values(), kernel=kernel)
    torch.testing.assert_close(y, exact, **tolerance)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("number", [-1, 24, 10**6, 2**62, -(2**62)])
def test_pixels_outside_the_image(number: int) -> None:
    inputs = deform_cases.listed(1, 3, 4, 6, 5, 9, 0.0)(torch.float32)
    inputs["index"][0, 4] = number
    kernel = inputs.pop("kernel")
    exact = deform_conv2d_reference(**inputs)
    y = cuda.compute(OPS["DeformConv2dAt"], *inputs.values(), kernel=kernel)
    torch.testing.assert_close(y, exact, rtol=1e-5, atol=1e-5)

    x, listed = rand(1, 3, 4, 6).float(), torch.tensor([3, number, 7])
    rows = cuda.compute(PIXEL_GATHER, x, listed, kernel=3)
    assert (rows[1] == 0).all()
    torch.testing.assert_close(rows[::2], pixel_gather(x, listed[::2], 3), rtol=0, atol=0)
    y = cuda.compute(PIXEL_SCATTER, x, listed, torch.ones(3, 3))
    assert ((y != x).sum(dim=1) == 3).sum() == 2


def scanned(inputs: Inputs) -> Tensor:
    tensors, attributes = split_attributes("SelectiveScan", inputs)
    return cuda.compute(OPS["SelectiveScan"], *tensors.values(), **attributes)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z"])
def test_nan_in_a_scan_goes_where_the_reference_lets_it_go(name: str) -> None:
    inputs = scan_cases.scan(1, 3, 4, 200)(torch.float32)
    inputs[name][0, 1, 40] = math.nan
    exact = selective_scan_reference(**inputs)
    assert exact.isnan().any()
    y = scanned(inputs)
    torch.testing.assert_close(y, exact, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.usefixtures("emulated")
def test_extreme_steps_and_rates_leave_no_nan() -> None:
    inputs = scan_cases.scan(1, 3, 4, 200, z=False, bias=False, softplus=0)(torch.float32)
    inputs["A"] = torch.full_like(inputs["A"], -1e30)
    inputs["delta"][:, :, ::7] = 1e20
    inputs["u"] *= 1e-20
    torch.testing.assert_close(scanned(inputs), selective_scan_reference(**inputs))


@pytest.mark.usefixtures("emulated")
def test_nan_in_a_mask_is_no_mask() -> None:
    inputs = pruned_cases.pruned(1, 3, 5, 6, 0.4)(torch.float32)
    inputs["mask"][0, 0, 2, 2] = math.nan
    del inputs["group"]
    exact = pruned_conv_reference(**inputs)
    y = cuda.compute(OPS["PrunedConv"], *inputs.values())
    torch.testing.assert_close(y, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("emulated")
def test_empty_tensors() -> None:
    x, nothing = torch.ones(1, 2, 3, 3), torch.zeros(0, dtype=torch.int64)
    assert cuda.compute(PIXEL_GATHER, x, nothing, kernel=3).numel() == 0
    assert cuda.compute(OPS["LocalMean6"], x[:0]).shape == (0, 2, 3, 3)
    inputs = pixel_cases.scatter(1, 3, 4, 5, 0.0)(torch.float32)
    y = cuda.compute(PIXEL_SCATTER, *inputs.values())
    torch.testing.assert_close(y, inputs["base"], rtol=0, atol=0)


@settings(max_examples=120, deadline=None)
@given(
    position=st.sampled_from(
        [(name, size) for name, call in CUDA.items() for size in sizes_of(*call)]
    ),
    value=st.one_of(st.integers(-(2**63), -1), st.integers(2**47, 2**63 - 1)),
)
def test_sizes_out_of_range_are_refused(
    library: ctypes.CDLL, position: tuple[str, str], value: int
) -> None:
    """One size of a fitting call, with pointers that must not be followed."""
    name, argument = position
    spec, function = CUDA[name]
    wrong = value % 2**31 + 400 if is_attribute(function, argument) else value
    assert getattr(library, name)(*fitting(spec, function, **{argument: wrong}).values()) in (1, 3)


def test_missing_tensors_types_and_workspaces_are_refused(library: ctypes.CDLL) -> None:
    for name, (spec, function) in CUDA.items():

        def code(pointer: int | None = POINTER, **others: int | None) -> Any:
            call = fitting(spec, function, pointer, **others)  # noqa: B023
            return getattr(library, name)(*call.values())  # noqa: B023

        assert code(None) == 2, name
        if "type" in function.arguments.split():
            assert code(type=3) == 3, name
        if function.workspace:
            assert code(workspace=None) == code(workspace=8) == code(workspace_bytes=8) == 4, name
    texts = {library.deblur_cuda_error_text(code) for code in range(6)}
    assert len(texts) == 6


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(list(WORKSPACES)),
    sizes=st.lists(st.integers(1, 3000), min_size=5, max_size=5),
    which=st.integers(0, 4),
    more=st.integers(1, 300),
)
def test_workspaces_never_shrink(
    library: ctypes.CDLL, name: str, sizes: list[int], which: int, more: int
) -> None:
    """What TensorRT asks for at the largest sizes is enough for the others."""
    function, kinds = getattr(library, name), WORKSPACES[name]
    head = [0] if kinds[0] is ctypes.c_int32 else []
    own = sizes[: kinds.count(ctypes.c_int64)]
    end = {"deform_conv2d": [5], "motion_deform_conv": [0]}.get(name[12:-10], [])
    grown = [size + more * (i == which % len(own)) for i, size in enumerate(own)]
    if "selective_scan" in name:
        own[2], grown[2] = sorted((own[2] % 64 + 1, grown[2] % 64 + 1))
    largest = function(*head, *grown, *end)  # negative: more than a call takes
    assert largest < 0 or 0 <= function(*head, *own, *end) <= largest


def test_versions_agree() -> None:
    header = (emulation.CSRC / "deblur_cuda.h").read_text(encoding="utf-8")
    (version,) = re.findall(r"#define DEBLUR_CUDA_VERSION (\d+)", header)
    assert int(version) == cuda.VERSION


@pytest.mark.usefixtures("emulated")
def test_only_for_tensors_on_a_gpu() -> None:
    assert cuda.available()
    assert not cuda.supports(OPS["LocalMean"], torch.ones(1, 2, 3, 3))


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_torch_ops_take_the_kernels(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for tensors on a GPU: one call of the kernel of that op, of tensors of any strides."""
    monkeypatch.setattr(cuda, "supports", lambda *_: True)
    names: list[str] = []
    original = cuda._call

    def spy(spec: OpSpec, function: NativeFunction, *rest: Any) -> None:
        names.append(function.name)
        original(spec, function, *rest)

    monkeypatch.setattr(cuda, "_call", spy)
    case = [c for c in CASES if c.op == op][-1]
    strided = {
        k: v.transpose(0, -1).contiguous().transpose(0, -1) if isinstance(v, Tensor) else v
        for k, v in case.make(torch.float32).items()
    }
    with cpu.switched_off():
        y = case.call(**strided)
    assert len(names) == 1
    assert error(y, case.dense(**case.make(torch.float64))) < NATIVE_FLOAT32


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["SelectiveScan-batch", "DeformConv2d-kernel-3", "LocalMean-13x30-window-12"]
)
def test_missing_barriers_are_seen(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulation without any."""
    folder = tmp_path_factory.getbasetemp() / "no-barriers"
    library = cuda.load(emulation.build(folder, "-DDEBLUR_NO_BARRIERS"))
    monkeypatch.setattr(cuda, "_library", lambda: library)
    case = next(c for c in CASES if str(c) == name)
    y = emulation.call(case, case.make(torch.float32))
    assert not error(y, case.dense(**case.make(torch.float64))) < NATIVE_FLOAT32
