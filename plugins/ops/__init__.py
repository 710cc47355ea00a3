"""The custom ops of domain `deblur`, by ONNX name."""

from __future__ import annotations

from deblur_export.plugins.ops import (
    deform_conv2d,
    dynamic_filter,
    local_mean,
    motion_deform_conv,
    pixel_rows,
    pruned_conv,
    rfft2,
    sampling_grid,
    selective_scan,
    top_pixels,
)
from deblur_export.plugins.spec import OpSpec

# One file for each; csrc/, docs/ops/ and tests/plugins/cases/ have the same names.
MODULES = (
    deform_conv2d,
    dynamic_filter,
    local_mean,
    sampling_grid,
    motion_deform_conv,
    pruned_conv,
    pixel_rows,
    selective_scan,
    top_pixels,
    rfft2,
)
OPS: dict[str, OpSpec] = {spec.name: spec for module in MODULES for spec in module.SPECS}
