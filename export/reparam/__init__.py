"""Exact rewrites of a network for inference; the exporter applies them in this order."""

from __future__ import annotations

from deblur_export.export.reparam.fold_batch_norm import fold_batch_norm
from deblur_export.export.reparam.fold_flow import fold_flow
from deblur_export.export.reparam.fold_layer_norm import fold_layer_norm
from deblur_export.export.reparam.fold_mask_threshold import fold_mask_threshold
from deblur_export.export.reparam.fold_motion_interpolation import fold_motion_interpolation
from deblur_export.export.reparam.fold_residual_scale import fold_residual_scale
from deblur_export.export.reparam.infra import Rewrite
from deblur_export.export.reparam.remove_dead_branches import remove_dead_branches
from deblur_export.export.reparam.unfold_masked_conv import unfold_masked_conv

EXACT_PASSES: tuple[tuple[str, Rewrite], ...] = (
    ("fold_batch_norm", fold_batch_norm),
    ("fold_layer_norm", fold_layer_norm),
    ("fold_residual_scale", fold_residual_scale),
    ("fold_motion_interpolation", fold_motion_interpolation),
    ("fold_mask_threshold", fold_mask_threshold),
    ("unfold_masked_conv", unfold_masked_conv),
    ("fold_flow", fold_flow),
    ("remove_dead_branches", remove_dead_branches),
)
