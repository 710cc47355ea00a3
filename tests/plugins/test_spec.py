"""The specifications of the ops: complete, and what the faces of the ops do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from deblur_export.plugins.ops import OPS
from deblur_export.plugins.ops.deform_conv2d import DENSE
from deblur_export.plugins.ops.motion_deform_conv import SPEC as MOTION
from deblur_export.plugins.shapes import axes_of, bind, evaluate, evaluate_shape
from deblur_export.plugins.spec import OpSpec
from deblur_export.target import TARGETS, TargetName
from tests.plugins.cases import CASES
from tests.plugins.harness import Case, outputs_of, split_attributes

SPECS = list(OPS.values())
IDS = [spec.name for spec in SPECS]


def named_targets(spec: OpSpec) -> list[list[str]]:
    """The targets that share a body, as `bodies` groups them."""
    return [names.split(", ") for names in spec.bodies]


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_inputs_that_stay_float32_have_a_reason(spec: OpSpec) -> None:
    for name, tensor in spec.inputs.items():
        assert bool(tensor.fp32) == (tensor.type == "tensor(float)"), name
    for name, tensor in spec.outputs.items():
        assert not tensor.fp32, name


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_every_text_is_there(spec: OpSpec) -> None:
    texts = [spec.about, spec.source, spec.doc, *spec.bodies.values()]
    texts += [t.doc for t in (*spec.inputs.values(), *spec.outputs.values())]
    texts += [attribute.doc for attribute in spec.attributes.values()]
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_bodies_are_named_for_every_target(spec: OpSpec) -> None:
    """Targets that are named together have the same operators; the others have different ones."""
    if spec.body is None:
        assert not spec.bodies
        return
    groups = named_targets(spec)
    assert sorted(target for group in groups for target in group) == sorted(TARGETS)

    def operators(target: TargetName) -> list[str]:
        assert spec.body is not None
        return [node.op_type for node in spec.body(TARGETS[target]).graph.all_nodes()]

    built = {target: operators(target) for target in TARGETS}
    distinct = []
    for group in groups:
        bodies = [built[target] for target in TARGETS if target in group]
        assert all(body == bodies[0] for body in bodies)
        distinct.append(bodies[0])
    assert all(distinct.count(body) == 1 for body in distinct)


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_bodies_read_their_inputs(spec: OpSpec) -> None:
    """onnxslim drops an input of a body that nothing reads, and leaves the nodes as they are."""
    for target in TARGETS.values():
        if spec.body is not None:
            inputs = spec.body(target).inputs
            unread = {str(value.name) for value in inputs if not value.uses()}
            assert unread <= set(spec.optional), target


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shapes_and_types_of_the_fake_op(case: Case) -> None:
    """What torch believes about the output, and what the dense definition returns."""
    spec = OPS[case.op]
    inputs = case.make(torch.float32)
    tensors, attributes = split_attributes(case.op, inputs)
    given = {name: tuple(t.shape) for name, t in tensors.items() if isinstance(t, Tensor)}
    sizes = {name: t for name, t in tensors.items() if isinstance(t, int)}
    values = spec.bind(given, attributes | sizes)
    # A size that only an output has.
    values = (
        {"K": values["W"] - values["onesided"] * ((values["W"] - 1) // 2), **values}
        if (case.op == "RFFT2")
        else values
    )
    with FakeTensorMode() as mode:
        fake = {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        y = case.call(**fake)
    faces = (outputs_of(y), outputs_of(case.dense(**inputs)), spec.outputs.values())
    for found, dense, output in zip(*faces, strict=True):
        assert tuple(found.shape) == evaluate_shape(output.shape, values) == tuple(dense.shape)
        assert found.dtype == (torch.int64 if output.type == "tensor(int64)" else torch.float32)
        assert found.is_contiguous()


@pytest.mark.parametrize("case", list({case.op: case for case in CASES}.values()), ids=str)
def test_every_input_that_does_not_fit_is_named(case: Case) -> None:
    """One more axis; and an axis that no other input knows is free."""
    tensors, attributes = split_attributes(case.op, case.make(torch.float32))
    spec = OPS[case.op]
    sizes = {name: tuple(t.shape) for name, t in tensors.items() if isinstance(t, Tensor)}
    for name in sizes:
        with pytest.raises(ValueError, match=rf"^{spec.name}: {name} has .* dimensions"):
            spec.bind(sizes | {name: (*sizes[name], 1)}, attributes)
    for name, attribute in spec.attributes.items():
        wrong = attributes | {name: 10**6 + 1}
        if attribute.values or attribute.equals:
            with pytest.raises(ValueError, match=f"^{spec.name}: {name} is 1000001, not "):
                spec.bind(sizes, wrong)
        with pytest.raises(ValueError, match=f"^{spec.name}: {name} is -1, not "):
            spec.bind(sizes, attributes | {name: -1})


def test_bind_learns_and_compares() -> None:
    sizes = {"x": (2, 4, 5, 7), "offset": (2, 18, 5, 7), "weight": (4, 1, 3, 3), "bias": (4,)}
    values = MOTION.bind(sizes, {"gate": 1})
    assert values == {"N": 2, "C": 4, "H": 5, "W": 7, "group": 4, "gate": 1}
    assert evaluate_shape(MOTION.outputs["y"].shape, values) == (2, 2, 5, 7)
    with pytest.raises(
        ValueError, match=r"^MotionDeformConv: bias is \(3,\), not \(4,\) \(C as in x\)$"
    ):
        MOTION.bind(sizes | {"bias": (3,)}, {})
    with pytest.raises(ValueError, match=r"^MotionDeformConv: group is 2, not C = 4$"):
        MOTION.bind(sizes, {"group": 2})
    with pytest.raises(ValueError, match=r"^DeformConv2d: kernel is 4, not one of \(3, 5\)$"):
        DENSE.bind({}, {"kernel": 4})


@pytest.mark.parametrize(
    ("expression", "value"),
    [("7", 7), ("C", 6), ("2*C + 1", 13), ("C / (1 + gate)", 3), ("H/gate - 1", 4)],
)
def test_expressions(expression: str, value: int) -> None:
    assert evaluate(expression, {"C": 6, "gate": 1, "H": 5}) == value


@pytest.mark.parametrize(
    ("expression", "error"), [("C", KeyError), ("C.x", SyntaxError), ("f(1)", SyntaxError)]
)
def test_what_is_no_size_is_refused(expression: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        evaluate(expression, {})


def test_axes_and_symbols_of_tensors_that_are_there() -> None:
    assert axes_of("N, 2*C, 3") == ("N", "2*C", "3")
    shapes = {"x": "N, C", "z": "N, 2*C"}
    assert bind(shapes, {"x": (1, 2)}, {}) == {"N": 1, "C": 2}
    with pytest.raises(ValueError, match=r"^z is \(1, 5\), not \(1, 4\)$"):
        bind(shapes, {"x": (1, 2), "z": (1, 5)}, {})
