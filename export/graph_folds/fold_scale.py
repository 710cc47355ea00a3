"""Fold factors and offsets per channel into the layer or norm before them.

    s * layer(y) + t  ->  layer'(y),   W'[o] = s[o] W[o],   bias'[o] = s[o] bias[o] + t[o]

Layer scales, residual scales, and affine parts that are written by hand.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from deblur_export.export.graph_folds.affine import Affine, fold_into_source
from deblur_export.export.graph_folds.match import (
    arguments,
    aten,
    is_call,
    layer_of,
    moved_from,
    per_channel,
    shape,
)
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.reparam.infra import Changes

PRODUCTS = {aten.mul.Tensor, aten.div.Tensor}
SUMS = {aten.add.Tensor, aten.sub.Tensor}


def fold_scale(program: Program) -> Changes:
    """Fold every product or sum of a layer's output with a constant; the changes are the names of
    the constants."""
    changes = Changes()
    for node in list(program.graph.nodes):
        if not is_call(node, *PRODUCTS, *SUMS) or program.is_written(node):
            continue
        own = arguments(node)
        left, right = own["self"], own["other"]
        swapped = program.is_constant(left) or not isinstance(left, fx.Node)
        y, constant = (right, left) if swapped else (left, right)
        if not isinstance(y, fx.Node) or shape(y) != shape(node) or program.is_constant(y):
            continue
        if swapped and node.target in (aten.div.Tensor, aten.sub.Tensor):
            continue
        if not program.is_constant(constant):
            continue
        assert isinstance(constant, fx.Node)
        reason = _fold(program, node, y, constant, own.get("alpha", 1))
        if reason is not None:
            name = program.name(constant)
            if reason:
                changes.declined.append((name, reason))
            else:
                changes.changed.append(name)
    return changes


def _fold(
    program: Program, node: fx.Node, y: fx.Node, constant: fx.Node, alpha: float
) -> str | None:
    """Fold one; returns "" if it was folded, why not, or None if it is no such place."""
    source, _ = moved_from(program, y, 0)
    place = _axis(program, source, y)
    vector = None if place is None else per_channel(program, constant, y, place)
    if place is None or vector is None:
        return None

    def vectors(value: Tensor) -> tuple[Tensor, Tensor]:
        numbers = vector(value)
        ones, zeros = torch.ones_like(numbers), torch.zeros_like(numbers)
        if node.target is aten.mul.Tensor:
            return numbers, zeros
        if node.target is aten.div.Tensor:
            return 1 / numbers, zeros
        return ones, alpha * numbers if node.target is aten.add.Tensor else -alpha * numbers

    reason = fold_into_source(program, y, place, Affine((constant,), vectors, node.target in SUMS))
    if not reason:
        program.replace(node, y)
    return reason


def _axis(program: Program, source: fx.Node, y: fx.Node) -> int | None:
    """The axis of `y` along which the layer that computes it has its output channels."""
    layer = layer_of(program, source)
    if layer is not None:
        wanted = layer.out_axis
    elif is_call(source, aten.layer_norm.default):
        wanted = len(shape(source)) - 1
    else:
        return None
    axes = range(len(shape(y)))
    return next((a for a in axes if moved_from(program, y, a) == (source, wanted)), None)
