"""Fold the affine part of a layer norm into the 1x1 and linear layers that read it.

layer(w * n + b)  ->  layer'(n),   W'[o, i] = W[o, i] w[i],   bias' = bias + W b
"""

from __future__ import annotations

import torch
from torch import Tensor

from deblur_export.export.graph_folds.affine import Affine, fold_into_users
from deblur_export.export.graph_folds.match import arguments, aten, shape
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.reparam.infra import Changes


def fold_norm_affine(program: Program) -> Changes:
    """Fold every layer norm over one axis; the changes are the paths of the norms."""
    changes = Changes()
    for norm in program.graph.find_nodes(op="call_function", target=aten.layer_norm.default):
        own = arguments(norm)
        weight, bias = own["weight"], own["bias"]
        nodes = tuple(node for node in (weight, bias) if node is not None)
        if not nodes or len(own["normalized_shape"]) != 1:
            continue
        if not all(map(program.is_constant, nodes)):
            continue

        def vectors(
            *values: Tensor, scaled: bool = weight is not None, shifted: bool = bias is not None
        ) -> tuple[Tensor, Tensor]:
            scale = values[0] if scaled else torch.ones_like(values[0])
            return scale, values[-1] if shifted else torch.zeros_like(scale)

        affine = Affine(nodes, vectors, shifts=bias is not None)
        reason = fold_into_users(program, norm, len(shape(norm)) - 1, affine)
        if reason:
            changes.declined.append((program.name(norm), reason))
            continue
        norm.args, norm.kwargs = (own["input"], own["normalized_shape"], None, None, own["eps"]), {}
        changes.changed.append(program.name(norm))
    return changes
