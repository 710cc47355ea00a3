"""Exact rewrites of a network for inference, in the order in which the exporter applies them."""

from __future__ import annotations

from deblur_export.export.reparam.fold_batch_norm import fold_batch_norm
from deblur_export.export.reparam.fold_channel_attention import fold_channel_attention
from deblur_export.export.reparam.fold_feature_aggregation import fold_feature_aggregation
from deblur_export.export.reparam.fold_flow import fold_flow
from deblur_export.export.reparam.fold_layer_norm import fold_layer_norm
from deblur_export.export.reparam.fold_mask_threshold import fold_mask_threshold
from deblur_export.export.reparam.fold_motion_interpolation import fold_motion_interpolation
from deblur_export.export.reparam.fold_residual_scale import fold_residual_scale
from deblur_export.export.reparam.fold_state_matrix import fold_state_matrix
from deblur_export.export.reparam.infra import Rewrite
from deblur_export.export.reparam.merge_experts import merge_experts
from deblur_export.export.reparam.merge_routers import merge_routers
from deblur_export.export.reparam.merge_sibling_convs import merge_sibling_convs
from deblur_export.export.reparam.merge_volterra import merge_volterra
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
    ("fold_feature_aggregation", fold_feature_aggregation),
    ("fold_state_matrix", fold_state_matrix),
    ("fold_channel_attention", fold_channel_attention),
    ("merge_volterra", merge_volterra),
    ("merge_routers", merge_routers),
    ("merge_experts", merge_experts),
    ("merge_sibling_convs", merge_sibling_convs),
    ("remove_dead_branches", remove_dead_branches),
)
