"""Fold the quadratic motion interpolation into the analyzer's convolution.

    T conv(x)  ->  conv'(x),   W' = T W,   bias' = T bias,   T the constant 18 x 4 matrix

The network then predicts the nine tap offsets directly.
"""

from __future__ import annotations

from torch import Tensor, nn

from deblur_export.export.reparam.infra import Changes, named_instances
from deblur_export.models.m2aenet import MotionAnalyzer, trajectory_matrix


def fold_motion_interpolation(net: nn.Module, probe: tuple[Tensor, ...]) -> Changes:
    """Fold the interpolation of every `MotionAnalyzer` into its convolution."""
    changes = Changes()
    for name, analyzer in named_instances(net, MotionAnalyzer):
        flow = analyzer.flow
        matrix = trajectory_matrix().to(flow.weight)
        if flow.out_channels == len(matrix):
            changes.declined.append((name, "already folded"))
            continue
        folded = nn.Conv2d(
            flow.in_channels, len(matrix), flow.kernel_size, padding=flow.padding
        ).to(flow.weight)
        assert folded.bias is not None and flow.bias is not None
        folded.weight.data = (matrix @ flow.weight.data.flatten(1)).view_as(folded.weight)
        folded.bias.data = matrix @ flow.bias.data
        analyzer.flow = folded
        changes.changed.append(name)
    return changes
