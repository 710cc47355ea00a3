"""The custom ops of domain `deblur`, by ONNX name."""

from __future__ import annotations

from deblur_export.plugins.ops import (
    local_mean,
    motion_deform_conv,
    pixel_rows,
    pruned_conv,
    sampling_grid,
)
from deblur_export.plugins.spec import OpSpec

OPS: dict[str, OpSpec] = {
    spec.name: spec
    for spec in (
        local_mean.SPEC,
        sampling_grid.SPEC,
        motion_deform_conv.SPEC,
        pruned_conv.SPEC,
        pixel_rows.PIXEL_GATHER,
        pixel_rows.PIXEL_SCATTER,
    )
}
