"""Attach function bodies of standard operators for the custom ops that a graph uses.

Every node also gets the namespace of the TensorRT plugin of its name: if that plugin is loaded, the
parser of TensorRT 10.7 and newer uses it instead of the body.
"""

from __future__ import annotations

import onnx_ir as ir

from deblur_export.plugins.function_body import DOMAIN, VERSION
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.spec import ABSENT, OpSpec
from deblur_export.target import TARGETS, Target, TargetName


def attach_functions(model: ir.Model, target: TargetName) -> list[str]:
    """Attach one function for each op in use, in place; returns the names of the ops.

    Raises:
        ValueError: nodes of the same op omit different optional inputs or attributes.
    """
    used = sorted({node.op_type for node in model.graph if node.domain == DOMAIN})
    for name in used:
        nodes = [n for n in model.graph if n.domain == DOMAIN and n.op_type == name]
        for node in nodes:
            node.attributes.add(ir.AttrString("plugin_namespace", DOMAIN))
        function = _function(OPS[name], TARGETS[target], nodes)
        if not TARGETS[target].empty_inputs:
            function = _without_gaps(OPS[name], function, nodes)
        model.functions[function.identifier()] = function
    if used:
        model.graph.opset_imports[DOMAIN] = VERSION
    return used


def _function(spec: OpSpec, target: Target, nodes: list[ir.Node]) -> ir.Function:
    if spec.specialize is not None:
        absences = {_absent(spec, node) for node in nodes}
        if len(absences) > 1:
            raise ValueError(
                f"{spec.name}: its nodes must omit the same optional inputs and attributes"
            )
        return spec.specialize(target, absences.pop())
    assert spec.body is not None, f"{spec.name} should have been replaced"
    return spec.body(target)


def _without_gaps(spec: OpSpec, function: ir.Function, nodes: list[ir.Node]) -> ir.Function:
    """Take the inputs that the nodes leave out, all the same, from them and from the function.

    Returns:
        The function of fewer inputs.
    """
    absent = [name for name in spec.inputs if name in _absent(spec, nodes[0])]
    if not absent:
        return function
    for node in nodes:
        given = [value for _, value in spec.inputs_of(node).values() if value is not None]
        node.resize_inputs(len(given))
        for index, value in enumerate(given):
            node.replace_input_with(index, value)
        node.attributes.add(ir.AttrStrings(ABSENT, absent))
    for value in [value for value in function.inputs if value.name in absent]:
        function.inputs.remove(value)
    return function


def _absent(spec: OpSpec, node: ir.Node) -> frozenset[str]:
    given = {name for name, (_, value) in spec.inputs_of(node).items() if value is not None}
    given.update(name for name in spec.attributes if node.attributes.get_int(name, 0))
    return frozenset(spec.optional) - given
