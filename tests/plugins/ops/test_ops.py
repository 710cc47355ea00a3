"""Every custom op: opcheck, dense definition in float64, ONNX bodies; from one case table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from deblur_export.plugins.ops.motion_deform_conv import motion_deform_conv
from deblur_export.plugins.ops.pixel_rows import pixel_gather
from deblur_export.plugins.ops.pruned_conv import (
    _pruned_rows,
    pruned_conv,
    pruned_conv_reference,
)
from deblur_export.target import TARGETS, TargetName
from tests.plugins.cases import CASES
from tests.plugins.cases.motion_deform_conv import deform
from tests.plugins.cases.pruned_conv import pruned
from tests.plugins.harness import (
    Case,
    arrays,
    first_quick,
    model_of,
    named,
    outputs_of,
    rand,
    split_attributes,
)
from tests.tolerances import OP_FLOAT64

# Every case in one form, every form of an op in one case; the rest is slow.
BODIES = [
    pytest.param(*parameter.values, target, id=f"{parameter.id}-{target}", marks=parameter.marks)
    for target in TARGETS
    for parameter in (first_quick(CASES) if target != "portable" else map(named, CASES))
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_dense_definition_in_float64(case: Case) -> None:
    inputs = case.make(torch.float64)
    torch.testing.assert_close(case.call(**inputs), case.dense(**inputs), **OP_FLOAT64)


@pytest.mark.parametrize("case", [c for c in CASES if c.op == "PrunedConv"], ids=str)
def test_pruned_rows_at_any_coverage(case: Case) -> None:
    """Also above the break-even, where the op itself would take the dense form."""
    inputs = case.make(torch.float64)
    del inputs["group"]
    torch.testing.assert_close(
        _pruned_rows(**inputs), pruned_conv_reference(**inputs), **OP_FLOAT64
    )


@pytest.mark.parametrize("case", first_quick(CASES), ids=str)
def test_opcheck(case: Case) -> None:
    tensors, attributes = split_attributes(case.op, case.make(torch.float32))
    if case.op == "MotionDeformConv":
        tensors = {k: v.requires_grad_() for k, v in tensors.items()}
    torch.library.opcheck(case.call, tuple(tensors.values()), attributes)


def test_motion_deform_conv_gradients() -> None:
    for gate in (0, 1):
        inputs = deform(1, 2, 4, 3, 0.7)(torch.float64)
        tensors = tuple(v.requires_grad_() for v in inputs.values() if isinstance(v, Tensor))
        attributes = {"group": 2, "gate": gate}
        assert torch.autograd.gradcheck(
            lambda *a, k=attributes: motion_deform_conv(*a, **k), tensors
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_motion_deform_conv_half_accumulates_in_float32(dtype: torch.dtype) -> None:
    inputs = deform(1, 4, 8, 8, 1.0)(dtype)
    y = motion_deform_conv(**inputs)
    exact = motion_deform_conv(
        **{k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    )
    torch.testing.assert_close(y, exact.to(dtype))


@pytest.mark.parametrize(("case", "target"), BODIES)
def test_onnx_body_on_onnxruntime(case: Case, target: TargetName) -> None:
    inputs = case.make(torch.float32)
    session = ort.InferenceSession(
        model_of(case, target, inputs).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, arrays(split_attributes(case.op, inputs)[0]))
    exact = outputs_of(case.dense(**case.make(torch.float64)))
    for y, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(y, expected.numpy(), **case.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: motion_deform_conv(
                rand(1, 2, 3, 3), rand(1, 16, 3, 3), rand(2, 1, 3, 3), rand(2), group=2
            ),
            "offset",
        ),
        (
            lambda: motion_deform_conv(
                rand(1, 2, 3, 3), rand(1, 18, 3, 3), rand(2, 1, 3, 3), rand(2), group=1
            ),
            "group",
        ),
        (lambda: motion_deform_conv(**deform(1, 2, 3, 3, 1.0, gate=2)(torch.float32)), "gate"),
        (lambda: motion_deform_conv(**deform(1, 3, 3, 3, 1.0, gate=1)(torch.float32)), "pairs"),
        (
            lambda: pruned_conv(
                **(pruned(1, 2, 3, 3, 1.0)(torch.float32) | {"mask": rand(1, 2, 3, 3)})
            ),
            "mask",
        ),
        (lambda: pixel_gather(rand(1, 2, 3, 3), torch.tensor([0]), 5), "kernel"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
