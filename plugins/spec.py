"""What one custom op is: the single description its torch, ONNX and native faces are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from deblur_export.plugins.function_body import DOMAIN, VERSION

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Target = Literal["portable", "ort", "openvino", "rtx"]
TARGETS: tuple[Target, ...] = ("portable", "ort", "openvino", "rtx")

# DeformConv appeared in opset 19.
OPSET: Mapping[Target, int] = {"portable": 18, "ort": 22, "openvino": 18, "rtx": 18}

FLOAT_TYPES = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]


@dataclass(frozen=True)
class OpSpec:
    """One op of domain `deblur`.

    `inputs` and `outputs` map a name to its ONNX type: "T" (one of `FLOAT_TYPES`), which follows
    the precision of a graph, or a concrete type string, "tensor(float)" for what stays float32 in
    any. `attributes` are integers. Inputs and attributes in `optional` may be left out; such an
    attribute is 0 then. `torch_op` is None for an op that only graph passes insert.
    `body(target)` returns the op in standard operators:
    "portable" runs everywhere, "ort" is the fastest on ONNX Runtime, "rtx" is what TensorRT for
    RTX builds best (no loop over pixels, no data-dependent shape, no TopK above 3840). It is None
    for an op that a graph pass replaces.
    `specialize(target, absent)` is the body for nodes that leave out `absent` of `optional` (an
    attribute that is 0 counts as left out); None where one body serves all nodes.
    """

    name: str
    doc: str
    torch_op: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    body: Callable[[Target], ir.Function] | None
    attributes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    specialize: Callable[[Target, frozenset[str]], ir.Function] | None = None

    def schema(self) -> onnx.defs.OpSchema:
        """The op's ONNX schema, version 1 of domain `deblur`."""
        from onnx.defs import OpSchema

        kinds = OpSchema.FormalParameterOption

        def formal(params: Mapping[str, str]) -> list[OpSchema.FormalParameter]:
            return [
                OpSchema.FormalParameter(
                    name,
                    type_,
                    param_option=kinds.Optional if name in self.optional else kinds.Single,
                )
                for name, type_ in params.items()
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
                OpSchema.Attribute(name, OpSchema.AttrType.INT, required=name not in self.optional)
                for name in self.attributes
            ],
        )
