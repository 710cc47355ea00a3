"""The case table of all custom ops."""

from __future__ import annotations

from tests.plugins.cases import local_mean, motion_deform_conv, pixel_rows, pruned_conv
from tests.plugins.harness import Case

CASES: list[Case] = [
    *local_mean.CASES,
    *motion_deform_conv.CASES,
    *pruned_conv.CASES,
    *pixel_rows.CASES,
]
