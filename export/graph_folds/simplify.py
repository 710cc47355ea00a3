"""Remove calls that change nothing, and calls and constants that nothing reads."""

from __future__ import annotations

from torch import fx

from deblur_export.export.graph_folds.match import arguments, aten, is_call
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.reparam.infra import Changes

COPIES = {
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
}
CASTS = {aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default, aten.to.device}
CHECKS = {aten._assert_tensor_metadata.default}


def simplify(program: Program) -> Changes:
    """Remove dead calls, copies, casts to the type that a tensor has, and dropout; the changes are
    the constants that nothing reads any more."""
    before = program.live()
    for node in list(program.graph.nodes):
        if _changes_nothing(node) and not program.is_written(node):
            source = node.args[0]
            node.replace_all_uses_with(source)
            program.graph.erase_node(node)
        elif is_call(node, *CHECKS):
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    after = program.live()
    return Changes(sorted(program.sources[name] for name in before if name not in after))


def _changes_nothing(node: fx.Node) -> bool:
    if is_call(node, *COPIES):
        return True
    if is_call(node, aten.dropout.default, aten.feature_dropout.default):
        return not arguments(node)["train"]
    if is_call(node, *CASTS) and isinstance(node.args[0], fx.Node):
        before, after = node.args[0].meta["val"], node.meta["val"]
        return bool(before.dtype == after.dtype and before.device == after.device)
    return False
