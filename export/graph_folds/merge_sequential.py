"""Merge two layers in a row, one of them pointwise, where that needs no more products.

conv1x1(conv(x))  ->  conv'(x),   W' = W2 W1,   bias' = W2 bias1 + bias2
conv(conv1x1(x))  ->  conv'(x),   if the second pads nothing, or the first has no bias: padding
                                  is 0 and not what the first layer makes of 0
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from deblur_export.export.graph_folds.affine import is_shared
from deblur_export.export.graph_folds.match import (
    Layer,
    arguments,
    layer_of,
    only_user,
    set_weights,
    shape,
)
from deblur_export.export.graph_folds.program import SCOPED, Program
from deblur_export.export.reparam.infra import Changes


def merge_sequential(program: Program) -> Changes:
    """Merge such pairs; the changes are the paths of the second layers."""
    changes = Changes()
    for node in list(program.graph.nodes):
        second = layer_of(program, node)
        first = None if second is None else layer_of(program, second.x)
        if first is None or second is None or not _is_candidate(program, first, second):
            continue
        reason = _why_not(first, second)
        if reason:
            changes.declined.append((program.name(node), reason))
            continue
        _merge(program, first, second)
        changes.changed.append(program.name(node))
    return changes


def _is_candidate(program: Program, first: Layer, second: Layer) -> bool:
    """Whether the second layer alone reads the first, and one of them is pointwise."""
    return (
        first.kind == second.kind != "transposed"
        and first.groups == second.groups == 1
        and only_user(program, first.node) is not None
        and (_is_pointwise(first) or _is_pointwise(second))
    )


def _why_not(first: Layer, second: Layer) -> str:
    if is_shared(first.weight) or is_shared(second.weight):
        return "a shared weight"
    if not _is_pointwise(second) and first.bias is not None and not second.is_unpadded:
        return "it pads with zeros, not with the bias of the layer before it"
    products = math.prod(shape(first.weight)) + math.prod(shape(second.weight))
    taps = math.prod((*shape(first.weight)[2:], *shape(second.weight)[2:]))
    merged = first.weight.meta["val"].shape[1] * second.channels * taps
    return "merged they need more products" if merged > products else ""


def _is_pointwise(layer: Layer) -> bool:
    stride = arguments(layer.node).get("stride", [1])
    return layer.is_pointwise and all(s == 1 for s in stride)


def _merge(program: Program, first: Layer, second: Layer) -> None:
    last_is_pointwise = _is_pointwise(second)

    def weight(after: Tensor, before: Tensor) -> Tensor:
        if last_is_pointwise:
            product: Tensor = torch.tensordot(after.flatten(1), before, dims=1)
        else:
            product = torch.einsum("om...,mi->oi...", after, before.flatten(1))
        return product

    def bias(*values: Tensor) -> Tensor:
        after, own, *rest = values
        matrix: Tensor = after.flatten(2).sum(2) if after.dim() > 2 else after
        shift: Tensor = matrix @ own
        return shift.add(rest[0]) if rest else shift

    new_bias = second.bias
    if first.bias is not None:
        own = () if second.bias is None else (second.bias,)
        new_bias = program.computed(bias, second.weight, first.bias, *own)
        named = second.bias or first.bias
        program.sources[new_bias.name] = program.sources[named.name]
    kept = first if last_is_pointwise else second
    new_weight = program.computed(weight, second.weight, first.weight)
    if last_is_pointwise:
        set_weights(program, kept, new_weight, new_bias)
        first.node.meta[SCOPED] = second.node.meta.get(SCOPED, {})
        program.replace(second.node, _inferred(program, first.node))
    else:
        set_weights(program, kept, new_weight, new_bias)
        second.node.replace_input_with(first.node, first.x)
        program.remove(first.node)


def _inferred(program: Program, node: fx.Node) -> fx.Node:
    program.infer(node)
    return node
