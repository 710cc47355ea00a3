"""Exact rewrites of the captured graph of any network, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Callable

from deblur_export.export.graph_folds.compute_constants import compute_constants
from deblur_export.export.graph_folds.fold_batch_norm import fold_batch_norm
from deblur_export.export.graph_folds.fold_norm_affine import fold_norm_affine
from deblur_export.export.graph_folds.fold_scale import fold_scale
from deblur_export.export.graph_folds.merge_branches import merge_branches
from deblur_export.export.graph_folds.merge_padding import merge_padding
from deblur_export.export.graph_folds.merge_sequential import merge_sequential
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.graph_folds.recognise_layer_norm import recognise_layer_norm
from deblur_export.export.graph_folds.simplify import simplify
from deblur_export.export.reparam.infra import Changes

GraphPass = Callable[[Program], Changes]
GRAPH_PASSES: tuple[GraphPass, ...] = (
    simplify,
    compute_constants,
    recognise_layer_norm,
    fold_batch_norm,
    fold_scale,
    fold_norm_affine,
    merge_sequential,
    merge_padding,
    merge_branches,
)
