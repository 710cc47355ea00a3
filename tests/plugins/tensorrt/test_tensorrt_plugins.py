"""The TensorRT plugins: every case through them, and what they answer TensorRT's builder.

Without a GPU they call the CUDA kernels as a C++ compiler makes them; the library of nvcc runs with
-m gpu.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deblur_export.plugins.libraries import tensorrt as tensorrt_library
from deblur_export.plugins.ops import OPS
from tests.plugins.cases import CASES
from tests.plugins.harness import Case, Inputs, split_attributes
from tests.plugins.tensorrt.harness import CHW4, Plugins, node_name
from tests.tolerances import NATIVE_BFLOAT16, NATIVE_FLOAT16, NATIVE_FLOAT32

# LocalMean stands for one op a window; it never gets into a file.
WITHOUT = {"LocalMean", "FFT2", "IRFFT2", "RFFT2"}  # TensorRT computes their bodies
NAMES = sorted(set(OPS) - WITHOUT)


@pytest.fixture(scope="module")
def plugins(harness: Path, library: Path) -> Plugins:
    return Plugins(harness, library)


def test_one_creator_an_op(plugins: Plugins) -> None:
    assert sorted(plugins.numbers) == NAMES
    for name, number in plugins.numbers.items():
        assert plugins.c.harness_namespace(number) == b"deblur"
        assert plugins.c.harness_kind(number) == b"PLUGIN CREATOR_V3ONE"
        assert plugins.attributes(name) == list(OPS[name].attributes)


def shapes_of(tensors: list[Tensor | None]) -> list[tuple[int, ...]]:
    return [() if t is None else tuple(t.shape) for t in tensors]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case(plugins: Plugins, case: Case) -> None:
    inputs = case.make(torch.float32)
    plugin, tensors = plugins.of_case(case.op, inputs)
    assert plugin.describes_itself()
    exact = case.dense(**case.make(torch.float64))
    shape = plugin.output_shape(shapes_of(tensors))
    assert shape is not None, plugins.log()
    assert [size for size, _ in shape] == list(exact.shape)
    dtype = torch.int64 if exact.dtype == torch.int64 else torch.float32
    y = torch.full(exact.shape, -1, dtype=dtype)
    assert plugin.output_type(tensors) == (8 if dtype == torch.int64 else 0)
    plugin.restored().run(tensors, y)
    assert_near(y, exact, NATIVE_FLOAT32)
    assert plugins.log() == ""


def has_type_t(op: str) -> bool:
    return any(tensor.type == "T" for tensor in OPS[op].inputs.values())


# Those whose values float16 can hold.
TYPED = [c for c in CASES if has_type_t(c.op) and "1e+06" not in c.name]
TOLERANCES = {
    torch.float32: NATIVE_FLOAT32,
    torch.float16: NATIVE_FLOAT16,
    torch.bfloat16: NATIVE_BFLOAT16,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", TYPED, ids=str)
def test_every_case_in_low_precision(plugins: Plugins, case: Case, dtype: torch.dtype) -> None:
    inputs = case.make(torch.float32)
    plugin, _ = plugins.of_case(case.op, inputs)
    exact = case.dense(**case.make(torch.float64))
    y = torch.empty(exact.shape, dtype=dtype)
    plugin.run(cast(case.op, inputs, dtype), y)
    assert_near(y, exact, TOLERANCES[dtype])


def assert_near(y: Tensor, exact: Tensor, tolerance: float) -> None:
    if y.dtype == torch.int64:
        assert torch.equal(y, exact)
    elif exact.numel():
        assert (y.double() - exact).abs().max() < tolerance * exact.abs().max()  # false for NaN


FIRST = list({case.op: case for case in reversed(CASES)}.values())


def cast(op: str, inputs: Inputs, dtype: torch.dtype) -> list[Tensor | None]:
    """The tensors of a case; those of type T in another precision."""
    tensors, _ = split_attributes(op, inputs)
    types = {name: tensor.type for name, tensor in OPS[op].inputs.items()}
    return [t if t is None or types[k] != "T" else t.to(dtype) for k, t in tensors.items()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.op)
def test_types_and_formats(plugins: Plugins, case: Case, dtype: torch.dtype) -> None:
    inputs = case.make(torch.float32)
    plugin, _ = plugins.of_case(case.op, inputs)
    tensors = cast(case.op, inputs, dtype)
    _, output = OPS[case.op].output
    made = {"T": dtype, "tensor(float)": torch.float32, "tensor(int64)": torch.int64}[output.type]
    y = torch.empty(case.dense(**inputs).shape, dtype=made)
    everything = [*tensors, y]
    others = torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32
    for position, tensor in enumerate(everything):
        if tensor is None:
            continue
        assert plugin.supports(position, everything)
        assert not plugin.supports(position, everything, CHW4)
        first_of_t = position == 0 and has_type_t(case.op)
        for other in others:
            free = first_of_t and other.is_floating_point
            changed = [*everything]
            changed[position] = tensor.to(other)
            assert plugin.supports(position, changed) == (free or other == tensor.dtype)


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.op)
def test_sizes_that_contradict_each_other(plugins: Plugins, case: Case) -> None:
    """A wrong constant is refused when the network is made, any other before it runs."""
    inputs = case.make(torch.float32)
    plugin, tensors = plugins.of_case(case.op, inputs)
    refused = 0
    for position, tensor in enumerate(tensors):
        for axis in range(0 if tensor is None else tensor.dim()):
            shapes = shapes_of(tensors)
            shapes[position] = tuple(s + (a == axis) for a, s in enumerate(shapes[position]))
            known = [[True] * len(shape) for shape in shapes]
            assert plugin.output_shape(shapes) is not None
            if plugin.output_shape(shapes, known) is not None:
                continue  # an axis of its own
            assert tensor is not None
            refused += 1
            changed = [*tensors]
            changed[position] = torch.zeros(shapes[position], dtype=tensor.dtype)
            assert plugin.workspace(changed) == -1
            assert plugin.enqueue(changed, torch.zeros(1), None) != 0
            messages = plugins.log().splitlines()
            assert len(messages) == 3
            assert all(
                re.match(rf"deblur {node_name(case.op, inputs)}: \w+ is \[", m) for m in messages
            )
    assert bool(refused) == (case.op not in ("LocalMean", "PixelGather"))


def test_known_sizes_stay_known(plugins: Plugins) -> None:
    plugin = plugins.create("MotionDeformConv", {"group": 6, "gate": 1})
    assert plugin is not None
    shapes = [(2, 6, 40, 50), (2, 18, 40, 50), (6, 1, 3, 3), (6,)]
    assert plugin.output_shape(shapes) == [(2, False), (3, True), (40, False), (50, False)]
    gather = plugins.create("PixelGather", {"kernel": 3})
    assert gather is not None
    known = [[False, True, False, False], [False]]
    assert gather.output_shape([(2, 5, 40, 50), (7,)], known) == [(7, False), (45, True)]


SCAN = {
    "u": (2, 3, 9),
    "delta": (2, 3, 9),
    "A": (3, 4),
    "B": (2, 4, 9),
    "C": (2, 4, 9),
    "D": (3,),
    "z": (2, 3, 9),
    "delta_bias": (3,),
}


@pytest.mark.parametrize(
    "left_out",
    [("z",), ("delta_bias",), ("z", "delta_bias"), ()],
    ids=["no-gate", "no-bias", "neither", "both"],
)
@pytest.mark.parametrize("form", ["absent", "dropped"])
def test_optional_inputs(plugins: Plugins, left_out: tuple[str, ...], form: str) -> None:
    """An input of no name before others comes as absent; a file may also leave it out."""
    tensors: dict[str, Tensor | None] = {name: torch.rand(shape) for name, shape in SCAN.items()}
    tensors["A"] = -torch.rand(SCAN["A"])
    tensors |= dict.fromkeys(left_out)
    exact = OPS["SelectiveScan"].torch_op(
        **{k: None if t is None else t.double() for k, t in tensors.items()}, delta_softplus=1
    )
    given = [t for t in tensors.values() if form == "absent" or t is not None]
    plugin = plugins.create("SelectiveScan", {"delta_softplus": 1})
    assert plugin is not None
    y = torch.empty(2, 3, 9)
    plugin.run(given, y)
    assert_near(y, exact, NATIVE_FLOAT32)
    assert all(plugin.supports(position, [*given, y]) for position in range(len(given) + 1))


def test_missing_and_surplus_inputs(plugins: Plugins) -> None:
    plugin = plugins.create("SelectiveScan", {"delta_softplus": 1})
    assert plugin is not None
    shapes = list(SCAN.values())
    assert plugin.output_shape(shapes[:5]) is None
    assert plugins.log() == "deblur SelectiveScan: input D is missing\n"
    assert plugin.output_shape([*shapes, (3,)]) is None
    assert plugins.log() == "deblur SelectiveScan: input 8 is none that the op has\n"


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("DeformConv2d", {"kernel": 4}, "attribute kernel cannot be 4"),
        ("DeformConv2d", {}, "attribute kernel is missing"),
        ("MotionDeformConv", {"group": 0}, "attribute group cannot be 0"),
        ("MotionDeformConv", {"group": 4, "gate": 2}, "attribute gate cannot be 2"),
        ("TopPixels", {"ratio": -1}, "attribute ratio cannot be -1"),
    ],
)
def test_bad_attributes(
    plugins: Plugins, op: str, attributes: dict[str, int], message: str
) -> None:
    assert plugins.create(op, attributes) is None
    assert plugins.log() == f"deblur {op}: {message}\n"


def test_an_attribute_of_older_files_may_be_missing(plugins: Plugins) -> None:
    plugin = plugins.create("MotionDeformConv", {"group": 6})
    assert plugin is not None
    shape = plugin.output_shape([(2, 6, 4, 5), (2, 18, 4, 5), (6, 1, 3, 3), (6,)])
    assert shape == [(2, False), (6, True), (4, False), (5, False)]


def test_errors_of_kernels(plugins: Plugins) -> None:
    case = next(case for case in CASES if case.op == "PrunedConv")
    plugin, tensors = plugins.of_case(case.op, case.make(torch.float32))
    y = torch.empty_like(tensors[0])
    assert plugin.enqueue(tensors, y, None) != 0
    assert plugins.log() == (
        "deblur PrunedConv: the workspace is missing, too small or not aligned to 16 bytes\n"
    )


def test_no_output_no_work(plugins: Plugins) -> None:
    plugin = plugins.create("PixelGather", {"kernel": 3})
    assert plugin is not None
    tensors = [torch.rand(1, 3, 4, 5), torch.empty(0, dtype=torch.int64)]
    assert plugin.enqueue(tensors, torch.empty(0, 27), None) == 0


@pytest.fixture(scope="module")
def device_plugins(harness: Path) -> Plugins:
    """The plugins over the kernels that nvcc made."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = tensorrt_library.find()
    if found.path is None:
        pytest.skip(found.reason)
    return Plugins(harness, found.path)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_on_the_gpu(device_plugins: Plugins, case: Case, dtype: torch.dtype) -> None:
    if dtype != torch.float32 and case not in TYPED:
        pytest.skip("has no such form")
    inputs = case.make(torch.float32)
    plugin, _ = device_plugins.of_case(case.op, inputs)
    tensors = [t if t is None else t.cuda() for t in cast(case.op, inputs, dtype)]
    exact = case.dense(**case.make(torch.float64))
    made = torch.int64 if exact.dtype == torch.int64 else dtype
    y = torch.full(exact.shape, -1, dtype=made, device="cuda")
    plugin.restored().run(tensors, y, torch.cuda.current_stream().cuda_stream)
    assert_near(y.cpu(), exact, TOLERANCES[dtype])
