"""Fold batch norms into the layer before them, or into the layers after them where that is exact.

bn(conv(x))  ->  conv'(x),   W'[o] = g[o] W[o],   bias' = g bias + beta - g mean
conv(bn(x))  ->  conv'(x),   only if the convolution pads nothing: it would pad with 0, not
                             with what the norm makes of 0
g = gamma / sqrt(var + eps)
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from deblur_export.export.graph_folds.affine import Affine, fold_into_source, fold_into_users
from deblur_export.export.graph_folds.match import arguments, aten, is_call
from deblur_export.export.graph_folds.program import SCOPED, Program
from deblur_export.export.reparam.infra import Changes


def fold_batch_norm(program: Program) -> Changes:
    """Fold every batch norm with stored statistics; the changes are the paths of the norms."""
    changes = Changes()
    for norm in program.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        name, x = program.name(norm), arguments(norm)["input"]
        affine = affine_of(program, norm)
        if affine is None:
            changes.declined.append((name, "it normalizes with the statistics of the batch"))
            continue
        reason = fold_into_source(program, x, 1, affine)
        if not reason:
            x.meta[SCOPED] = norm.meta.get(SCOPED, {})  # its value is now the output of the norm
        elif after := fold_into_users(program, norm, 1, affine):
            changes.declined.append((name, f"{reason}; {after}"))
            continue
        program.replace(norm, x)
        changes.changed.append(name)
    return changes


def affine_of(program: Program, norm: fx.Node) -> Affine | None:
    """The map that a batch norm is, or None."""
    if not is_call(norm, aten.batch_norm.default):
        return None
    own = arguments(norm)
    weight, bias, eps = own["weight"], own["bias"], own["eps"]
    nodes = [n for n in (own["running_mean"], own["running_var"], weight, bias) if n is not None]
    if own["training"] or len(nodes) < 2 or not all(map(program.is_constant, nodes)):
        return None

    def vectors(mean: Tensor, variance: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        scale = torch.rsqrt(variance + eps)
        if weight is not None:
            scale = scale * rest[0]
        shift = -mean * scale
        return scale, shift + rest[-1] if bias is not None else shift

    return Affine(tuple(nodes), vectors, shifts=True)
