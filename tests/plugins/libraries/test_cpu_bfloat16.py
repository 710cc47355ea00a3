"""The native CPU kernels on features in bfloat16, channels last, as OpenVINO calls them.

Products of pairs of bfloat16 against float64 and against the same kernels in float32.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deblur_export.plugins.libraries import cpu
from tests import needs
from tests.plugins.cases import motion_deform_conv as motion_cases
from tests.plugins.cases import pruned_conv as pruned_cases
from tests.plugins.harness import Inputs
from tests.plugins.native_functions import cpu_library
from tests.tolerances import NATIVE_BFLOAT16

NHWC_BF16 = 2  # DEBLUR_NHWC_BF16

pytestmark = needs.kernels

# Around the width of a block of channels (32) and the pixels of a tile, a strip and a product.
PRUNED = {
    "one-channel": pruned_cases.pruned(1, 1, 4, 5, 0.4),
    "odd": pruned_cases.pruned(2, 37, 5, 71, 0.4),
    "none": pruned_cases.pruned(1, 33, 5, 9, 0.0),
    "all": pruned_cases.pruned(1, 64, 7, 20, 1.0),
}
MOTIONS = {
    "one-channel": motion_cases.deform(2, 1, 5, 4, 1.5),
    "odd": motion_cases.deform(1, 37, 6, 45, 2.0),
    "blocks": motion_cases.deform(1, 64, 5, 33, 2.0),
    "gated-pair": motion_cases.deform(1, 2, 1, 9, 1.5, gate=1),
    "gated-odd": motion_cases.deform(2, 74, 6, 35, 2.0, gate=1),
    "gated-blocks": motion_cases.deform(1, 128, 12, 12, 1.0, gate=1),
    "far-outside": motion_cases.deform(1, 33, 5, 4, 40.0),
}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Switches to an instruction set; skips where there is none."""

    def switch(isa: str) -> None:
        monkeypatch.setenv("DEBLUR_ISA", isa)
        if cpu.instruction_set() != isa:
            pytest.skip(f"this machine or library has no {isa}")

    return switch


def held(make: Callable[..., Inputs]) -> Inputs:
    """The case in float32, its features and weights as bfloat16 holds them."""
    inputs = make(torch.bfloat16)
    return {k: v.float() if isinstance(v, Tensor) else v for k, v in inputs.items()}


def exact(definition: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    return definition(**wide)


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).to(torch.bfloat16).contiguous()


def call(name: str, inputs: Inputs, threads: int, *, plan: bool = False) -> Tensor:
    """An op of inputs with the channels first -> its float32 output likewise."""
    tensors = [v.contiguous() for v in inputs.values() if isinstance(v, Tensor)]
    x, others = last(tensors[0]), [t.data_ptr() for t in tensors[1:]]
    n, c, h, w = tensors[0].shape
    gate = inputs.get("gate", 0)
    tail = [n, c, h, w]
    library = cpu_library()
    if name == "deblur_motion_deform_conv":
        samples = None
        if plan:
            library.deblur_motion_plan_bytes.restype = ctypes.c_int64
            sizes = [ctypes.c_int64(size) for size in (n, h, w)]
            samples = ctypes.create_string_buffer(library.deblur_motion_plan_bytes(*sizes))
            library.deblur_motion_plan(ctypes.c_void_p(others[0]), samples, *sizes, None)
            others[0] = 0
        others.insert(1, ctypes.addressof(samples) if samples else 0)
        tail.append(gate)
    y = torch.full((n, h, w, c >> gate), math.nan, dtype=torch.bfloat16)
    pool = cpu._Threads(threads, None, None)
    pointers = [x.data_ptr(), *others, y.data_ptr()]
    assert getattr(library, name)(NHWC_BF16, *pointers, *tail, ctypes.byref(pool)) == 0
    return y.permute(0, 3, 1, 2).float()


CASES = [
    *(("deblur_pruned_conv", make, pruned_cases.dense) for make in PRUNED.values()),
    *(("deblur_motion_deform_conv", make, motion_cases.tent_deform) for make in MOTIONS.values()),
]
IDS = [*(f"pruned-{name}" for name in PRUNED), *(f"motion-{name}" for name in MOTIONS)]


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "avx512_bf16"])
@pytest.mark.parametrize(("name", "make", "definition"), CASES, ids=IDS)
def test_equals_float64(
    name: str,
    make: Callable[..., Inputs],
    definition: Callable[..., Tensor],
    isa: str,
    use: Callable[[str], None],
) -> None:
    use(isa)
    inputs = held(make)
    expected = exact(definition, inputs)
    for threads in (1, 3):
        y = call(name, inputs, threads)
        assert (y - expected).abs().max() < NATIVE_BFLOAT16 * expected.abs().max()


@pytest.mark.parametrize(("name", "make"), [case[:2] for case in CASES], ids=IDS)
def test_products_of_pairs_are_near_those_of_floats(
    name: str, make: Callable[..., Inputs], use: Callable[[str], None]
) -> None:
    inputs = held(make)
    use("avx512_bf16")
    pairs = call(name, inputs, 1)
    use("avx512")
    floats = call(name, inputs, 1)
    assert (pairs - floats).abs().max() < NATIVE_BFLOAT16 / 2 * floats.abs().max()


def test_products_of_pairs_are_used(use: Callable[[str], None]) -> None:
    """Weights and factors that bfloat16 does not hold come out otherwise."""
    for name, make in (
        ("deblur_pruned_conv", PRUNED["all"]),
        ("deblur_motion_deform_conv", MOTIONS["gated-blocks"]),
    ):
        use("avx512_bf16")
        pairs = call(name, make(torch.float32), 1)
        use("avx512")
        assert not torch.equal(pairs, call(name, make(torch.float32), 1))


def test_a_plan_gives_the_same(use: Callable[[str], None]) -> None:
    use("avx512_bf16")
    inputs = held(MOTIONS["gated-odd"])
    name = "deblur_motion_deform_conv"
    assert torch.equal(call(name, inputs, 1, plan=True), call(name, inputs, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e30, 1e-40])
def test_strange_offsets_spoil_the_same_pixels(value: float, use: Callable[[str], None]) -> None:
    inputs = held(MOTIONS["odd"])
    inputs["offset"][0, 7, 2, 3] = inputs["offset"][0, 10, 0, 0] = value
    results = []
    for isa in ("avx512", "avx512_bf16"):
        use(isa)
        results.append(call("deblur_motion_deform_conv", inputs, 1))
    floats, pairs = results
    assert floats.isnan().sum() == (0 if abs(value) < 1e38 else 2 * 37)
    assert torch.equal(floats.isnan(), pairs.isnan())
    near = NATIVE_BFLOAT16 / 2 * floats.nan_to_num().abs().max()
    assert (floats - pairs).nan_to_num().abs().max() < near
