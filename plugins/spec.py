"""What one custom op is: the single description its torch, ONNX and native faces are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deblur_export.plugins.function_body import DOMAIN, VERSION
from deblur_export.plugins.parameters import FLOAT_TYPES, AttributeSpec, NativeFunction, TensorSpec
from deblur_export.plugins.shapes import Values, bind, evaluate
from deblur_export.target import Target

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from torch import Tensor

# The attribute of a node that names the optional inputs which it leaves out, where those it has
# stand without gaps.
ABSENT = "absent_inputs"


@dataclass(frozen=True, eq=False)
class OpSpec:
    """One op of domain `deblur`: what its torch, ONNX and native faces have in common.

    Attributes:
        name: of the ONNX node.
        doc: one sentence; it stands in exported files.
        about: what it computes and how, as the text of its page in docs/ops.
        source: where its definition comes from.
        inputs, outputs: tensors in the order of the node, by name.
        attributes: of the node, by name; all of them integers.
        torch_op: None for an op that only graph passes insert.
        body: `body(target)` is the op in standard operators; None for an op that a graph pass
            replaces. What it is made of follows from what the target's record allows.
        bodies: what each body consists of, by the names of the targets that have it, separated by
            commas.
        specialize: `specialize(target, absent)` is the body for nodes that leave out `absent` of
            `optional` (an attribute that is 0 counts as left out); None where one body serves all
            nodes.
        constants: values that follow from the name, such as the 5 of DynamicFilter5.
        cpu, cuda: the native functions, None for none.
        torch_on_cpu: whether torch_op computes by the CPU function, which OpenVINO always does.
        tensorrt: whether the TensorRT plugins know the name.
    """

    name: str
    doc: str
    about: str
    source: str
    torch_op: Any
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    body: Callable[[Target], ir.Function] | None
    bodies: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, AttributeSpec] = field(default_factory=dict)
    specialize: Callable[[Target, frozenset[str]], ir.Function] | None = None
    constants: Mapping[str, int] = field(default_factory=dict)
    cpu: NativeFunction | None = None
    cuda: NativeFunction | None = None
    torch_on_cpu: bool = False
    tensorrt: bool = True

    @property
    def optional(self) -> tuple[str, ...]:
        """Names of the inputs and attributes that a node may leave out."""
        inputs = [name for name, tensor in self.inputs.items() if tensor.optional]
        return (*inputs, *(name for name, a in self.attributes.items() if a.optional))

    def inputs_of(self, node: ir.Node) -> dict[str, tuple[TensorSpec, ir.Value | None]]:
        """The inputs of a node by name, without those that its attribute `ABSENT` names."""
        absent = node.attributes.get_strings(ABSENT, ())
        names = [name for name in self.inputs if name not in absent]
        found = zip(names, node.inputs, strict=False)
        return {name: (self.inputs[name], value) for name, value in found}

    @property
    def openvino(self) -> bool:
        """Whether the OpenVINO extension knows the name: it computes by the CPU function."""
        return self.cpu is not None

    @property
    def output(self) -> tuple[str, TensorSpec]:
        """The output and its name; every op has one."""
        ((name, tensor),) = self.outputs.items()
        return name, tensor

    def check(self, *tensors: Tensor | None, **attributes: int) -> None:
        """Raise ValueError, with one line, if a tensor or an attribute does not fit.

        Args:
            tensors: inputs in their order; None for one that is left out.
            attributes: as for `bind`.
        """
        given = zip(self.inputs, tensors, strict=False)
        self.bind({name: t.shape for name, t in given if t is not None}, attributes)

    def bind(self, sizes: Mapping[str, Sequence[int]], attributes: Mapping[str, int]) -> Values:
        """The value of every symbol of the shapes, attributes and constants included.

        Args:
            sizes: the shapes of the inputs that are there, by name.
            attributes: those that are given, and inputs that are sizes. An attribute that repeats
                a size may be left out too.

        Raises:
            ValueError: a shape or an attribute does not fit; the message is one line.
        """
        try:
            return self._bound(sizes, attributes)
        except ValueError as misfit:
            raise ValueError(f"{self.name}: {misfit}") from None

    def _bound(self, sizes: Mapping[str, Sequence[int]], attributes: Mapping[str, int]) -> Values:
        known = dict(self.constants)
        known.update({n: v for n, v in attributes.items() if n in self.inputs})
        for name, attribute in self.attributes.items():
            if name not in attributes and attribute.equals:
                continue
            value = known[name] = attributes.get(name, 0)
            if attribute.values and value not in attribute.values:
                raise ValueError(f"{name} is {value}, not one of {attribute.values}")
            if not attribute.values and value < 1:
                raise ValueError(f"{name} is {value}, not positive")
        shapes = {name: tensor.shape for name, tensor in self.inputs.items()}
        values = dict(bind(shapes, sizes, known))
        for name, attribute in self.attributes.items():
            if attribute.equals:
                size = evaluate(attribute.equals, values)
                if values.setdefault(name, size) != size:
                    raise ValueError(f"{name} is {values[name]}, not {attribute.equals} = {size}")
        return values

    def schema(self) -> onnx.defs.OpSchema:
        """The op's ONNX schema, version 1 of domain `deblur`."""
        from onnx.defs import OpSchema

        kinds = OpSchema.FormalParameterOption

        def formal(tensors: Mapping[str, TensorSpec]) -> list[OpSchema.FormalParameter]:
            return [
                OpSchema.FormalParameter(
                    name,
                    tensor.type,
                    param_option=kinds.Optional if tensor.optional else kinds.Single,
                )
                for name, tensor in tensors.items()
            ]

        return OpSchema(
            self.name,
            DOMAIN,
            VERSION,
            doc=self.doc,
            inputs=formal(self.inputs),
            outputs=formal(self.outputs),
            type_constraints=[("T", FLOAT_TYPES, "floating-point tensors")],
            attributes=[
                OpSchema.Attribute(name, OpSchema.AttrType.INT, required=not attribute.optional)
                for name, attribute in self.attributes.items()
            ],
        )
