"""Discrete choices of a graph that nothing holds: a note instead of a check.

The choices of our own networks are modules of their own, see `models.decisions`: a comparison gives
both sides the same ones. Those of another network can fall differently where rounding decides, and
the images then differ by more than rounding.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from deblur_export.shown import shown

CHOOSING = frozenset(
    {"TopK", "ArgMax", "ArgMin", "Round", "Floor", "Ceil", "Sign", "NonZero", "Unique", "Mod"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"}
)
CHOICES = "discrete choices that are not compared"  # how the note begins
SIZES = frozenset({"Shape", "Size"})
LISTED = 3


def notes_on_choices(model: ir.Model, held: Collection[str]) -> tuple[str, ...]:
    """One line about the nodes that choose by numbers computed from the image, or none.

    Args:
        model: nodes are named `<module>/<operator>`.
        held: paths of the modules whose choices are compared.
    """
    found: dict[str, None] = {}
    by_image = set(model.graph.inputs)
    for node in model.graph:
        read = [value for value in node.inputs if value in by_image]
        if not read or node.op_type in SIZES:
            continue
        by_image.update(node.outputs)
        floats = any(v.dtype is not None and v.dtype.is_floating_point() for v in read if v)
        module = str(node.name).rpartition("/")[0]
        own = any(module == name or module.startswith(f"{name}.") for name in held)
        if node.op_type in CHOOSING and floats and not own:
            found[f"{node.op_type} in {shown(module or 'the network')}"] = None
    if not found:
        return ()
    listed = ", ".join(list(found)[:LISTED]) + ", ..." * (len(found) > LISTED)
    return (
        f"{CHOICES}: {listed}; where rounding decides one, image and "
        "reference differ by more than rounding, in low precision more often",
    )
