"""Merge a zero padding into the convolution after it.

conv(pad(x))  ->  conv'(x) with that padding
"""

from __future__ import annotations

from torch import fx

from deblur_export.export.graph_folds.match import (
    CONVS,
    arguments,
    aten,
    is_call,
    layer_of,
    shape,
)
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.reparam.infra import Changes

PADS = {aten.pad.default, aten.constant_pad_nd.default}


def merge_padding(program: Program) -> Changes:
    """Merge such paddings; the changes are the paths of the modules that pad."""
    changes = Changes()
    for node in list(program.graph.nodes):
        layer = layer_of(program, node)
        if layer is None or not is_call(node, *CONVS) or program.is_written(layer.x):
            continue
        padding = _zero_padding(layer.x)
        own = arguments(node)
        if padding is None or isinstance(own["padding"], str):
            continue
        sides = len(shape(layer.weight)) - 2
        before = tuple(own["padding"]) * (sides if len(own["padding"]) == 1 else 1)
        own["padding"] = [a + b for a, b in zip(before, padding, strict=False)]
        if len(padding) != sides:
            continue
        changes.changed.append(program.name(layer.x))
        own["input"] = layer.x.args[0]
        pad = layer.x
        node.args, node.kwargs = tuple(own.values()), {}
        program.remove(pad)
    return changes


def _zero_padding(node: fx.Node) -> list[int] | None:
    """How many zeros a call adds on both sides of each axis after the channels; None if it is no
    such call."""
    if not is_call(node, *PADS):
        return None
    own = arguments(node)
    if own.get("mode", "constant") != "constant" or own["value"] not in (None, 0, 0.0):
        return None
    pairs = list(zip(own["pad"][::2], own["pad"][1::2], strict=True))[::-1]
    if any(not isinstance(n, int) or n < 0 or n != pair[0] for pair in pairs for n in pair):
        return None
    return [before for before, _ in pairs]
