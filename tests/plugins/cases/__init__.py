"""The case table of all custom ops."""

from __future__ import annotations

from tests.plugins.cases import (
    deform_conv2d,
    dynamic_filter,
    local_mean,
    motion_deform_conv,
    pixel_rows,
    pruned_conv,
    selective_scan,
    top_pixels,
)
from tests.plugins.harness import Case

CASES: list[Case] = [
    *deform_conv2d.CASES,
    *dynamic_filter.CASES,
    *local_mean.CASES,
    *motion_deform_conv.CASES,
    *pruned_conv.CASES,
    *pixel_rows.CASES,
    *selective_scan.CASES,
    *top_pixels.CASES,
]
