"""The custom ops of domain `deblur`, by ONNX name."""

from __future__ import annotations

from deblur_export.plugins.ops import (
    deform_conv2d,
    dynamic_filter,
    local_mean,
    motion_deform_conv,
    pixel_rows,
    pruned_conv,
    sampling_grid,
    selective_scan,
    top_pixels,
)
from deblur_export.plugins.spec import OpSpec

OPS: dict[str, OpSpec] = {
    spec.name: spec
    for spec in (
        deform_conv2d.DENSE,
        deform_conv2d.LISTED,
        *dynamic_filter.SPECS,
        local_mean.SPEC,
        *local_mean.WINDOW_SPECS,
        sampling_grid.SPEC,
        motion_deform_conv.SPEC,
        pruned_conv.SPEC,
        pixel_rows.PIXEL_GATHER,
        pixel_rows.PIXEL_SCATTER,
        selective_scan.SPEC,
        top_pixels.SPEC,
    )
}
