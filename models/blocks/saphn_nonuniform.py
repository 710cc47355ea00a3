"""A non-uniform stage of SAPHN (Suin et al. 2024, arXiv:2402.06117: adaptive sampling).

Below full size the features are at sampled points [N, L, C] instead of on a grid. In parallel there
is a uniform grid of the same number of pixels, with only the strided, transposed and 3x3
convolutions. For points,
- the 3x3 convolution of a residual block is a 1x1, as a set of points has no neighbours;
- attention computes its summary of the image from the uniform grid and the scores P from the point;
- offsets, kernels and fusion map are computed from the point and its neighbours in the grid of the
  finer scale, which a 1x1 convolution has projected; PDF samples that grid;
- the decoder writes points back to their positions among the encoder's points of the finer scale,
  and a convolution merges them (3x3 at full size, where the features of the uniform grid are
  added).
The paper does not specify the interaction of points and grids; this one has the published cost.

Departures from the text (arXiv:2402.06117), counted by bench/readings.py:
- Sec. 3.1 samples the points of every scale from the map of full size. Here those of a scale are
  sampled from the points of the scale before. At test time they are the same pixels, because all
  scales rank them by the same scores, with the features that the blocks in between have made.
- Sec. 3.2.4 takes the patches that PDF filters from the original tensor. Here they are from the
  uniform grid of the finer scale. With points and patches from the features of full size the cost
  would be 143.4 instead of 142.8 GMACs (published: 140).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models.blocks.saphn_attention import Attention
from deblur_export.models.blocks.saphn_content import BOUND, KERNEL, ContentAware, ResBlock
from deblur_export.models.blocks.saphn_points import (
    BestQuarter,
    Grid,
    PointSiblings,
    Selection,
    as_image,
    as_rows,
    best,
    grid_around,
    pick,
    put,
    sampled,
)
from deblur_export.models.blocks.saphn_stage import Decoder, Encoder, Scales, Stage
from deblur_export.plugins.ops.deform_conv2d import deform_conv2d_at


def mixed_at(summary: Tensor, p: Tensor) -> Tensor:
    """Summary [N, C, C2] and scores P [N, L, C2] before the softmax -> [N, L, C]."""
    return p.softmax(dim=2) @ summary.transpose(1, 2)


class PointAttention(Attention):
    """Cross attention at points; all maps except P are computed from the uniform grid."""

    maps_class = PointSiblings
    maps: PointSiblings

    def forward(  # type: ignore[override]
        self, uniform: Tensor, points: Tensor, values: Tensor, grid: Grid
    ) -> Tensor:
        """uniform and values [N, C, H, W], points [N, L, C] -> [N, L, C]."""
        (p,) = self.maps.at(points, grid)
        return mixed_at(self.summary(uniform, values), p)


class PointContentAware(ContentAware):
    """The content-aware module at points."""

    maps_class = PointSiblings
    maps: PointSiblings

    def forward(self, uniform: Tensor, points: Tensor, grid: Grid) -> Tensor:  # type: ignore[override]
        """uniform [N, C, H, W], points [N, L, C] -> [N, L, C]."""
        p, offset, kernel, fusion = self.maps.at(points, grid)
        attended = mixed_at(self.summary(uniform, uniform), p)
        filtered = deform_conv2d_at(
            grid.x,
            BOUND * offset.tanh().transpose(1, 2),
            self.weight,
            self.bias,
            kernel.transpose(1, 2),
            grid.cell,
            kernel=KERNEL,
        ).transpose(1, 2)
        return filtered + fusion.sigmoid() * (attended - filtered)  # type: ignore[no-any-return]


class PointBlock(nn.Module):
    """A residual block on the uniform grid and on the points."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.point = nn.Linear(channels, channels)
        self.content = PointContentAware(channels)

    def forward(self, uniform: Tensor, points: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """uniform [N, C, H, W] and points [N, L, C] -> both in the same shapes."""
        around = F.relu(self.conv(uniform))
        here = F.relu(self.point(points))
        return uniform + around, points + self.content(around, here, grid)


class PointBlocks(nn.ModuleList):
    """The residual blocks of one scale below full size."""

    def forward(self, uniform: Tensor, points: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        for block in self:
            uniform, points = block(uniform, points, grid)
        return uniform, points


class PointScales(Scales):
    """Dense blocks and cross attention at full size, and those for points below."""

    def make_blocks(self, widths: Sequence[int], count: int) -> nn.ModuleList:
        dense = nn.Sequential(*(ResBlock(widths[0]) for _ in range(count)))
        sparse = (PointBlocks(PointBlock(w) for _ in range(count)) for w in widths[1:])
        return nn.ModuleList([dense, *sparse])

    def make_cross(self, widths: Sequence[int]) -> nn.ModuleList:
        return nn.ModuleList([Attention(widths[0]), *(PointAttention(w) for w in widths[1:])])


class Encoded(NamedTuple):
    """Encoder features from full size down: uniform grids, points, and the grids around the points.

    At full size every pixel is a point; `grids` begins at half size.
    """

    uniform: list[Tensor]
    points: list[Tensor]
    grids: list[Grid]


class Project(nn.Conv2d):
    """A 1x1 convolution for both a grid and points."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, 1)

    def forward(self, x: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """x [N, C, H, W] and points [N, L, C] -> both with `outputs` channels."""
        return super().forward(x), F.linear(points, self.weight.flatten(1), self.bias)


class PointEncoder(PointScales, Encoder):
    """The encoder of a non-uniform stage; `projects` change the channels of grid and points to
    those of the next scale."""

    def __init__(self, widths: Sequence[int], count: int, lower: bool) -> None:
        super().__init__(widths, count, lower)
        self.projects = nn.ModuleList(
            Project(fine, coarse) for fine, coarse in itertools.pairwise(widths)
        )

    def forward(  # type: ignore[override]
        self, image: Tensor, lower: Sequence[Tensor], selections: Sequence[Selection]
    ) -> Encoded:
        """Image [N, 3, H, W], decoder features of the previous stage, and one selection for each
        scale below full size -> encoder features."""
        assert self.cross is not None
        x = self.blocks[0](self.intro(image))
        x = x + self.cross[0](x, lower[0])
        encoded = Encoded([x], [as_rows(x)], [])
        for scale, chosen in enumerate(selections, start=1):
            fine = encoded.uniform[-1]
            picked = pick(encoded.points[-1], chosen.number)
            around, points = self.projects[scale - 1](fine, picked)
            grid = grid_around(around, chosen.pixel, 2 ** (scale - 1))
            uniform, points = self.blocks[scale](self.downs[scale - 1](fine), points, grid)
            points = points + self.cross[scale](uniform, points, lower[scale], grid)
            encoded.uniform.append(uniform)
            encoded.points.append(points)
            encoded.grids.append(grid)
        return encoded


class PointDecoder(PointScales, Decoder):
    """The decoder of a non-uniform stage; `writes` change the channels of points to those of the
    finer scale, and `merges` combine them with the points there."""

    def __init__(self, widths: Sequence[int], count: int) -> None:
        super().__init__(widths, count)
        self.writes = nn.ModuleList(
            nn.Linear(coarse, fine) for fine, coarse in itertools.pairwise(widths)
        )
        full = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.merges = nn.ModuleList([full, *(nn.Linear(w, w) for w in widths[1:-1])])

    def forward(  # type: ignore[override]
        self, encoded: Encoded, selections: Sequence[Selection]
    ) -> list[Tensor]:
        """The decoder features from full size down; below full size those of the uniform grid."""
        uniform, points = encoded.uniform[-1], encoded.points[-1]
        features = []
        for scale in range(len(selections), 0, -1):
            if scale < len(selections):
                uniform = self.ups[scale](uniform)
                points = self.merges[scale](self.written(scale, points, encoded, selections))
            grid = encoded.grids[scale - 1]
            values = encoded.uniform[scale]
            points = points + self.cross[scale](uniform, points, values, grid)
            uniform, points = self.blocks[scale](uniform, points, grid)
            features.append(uniform)
        skip = encoded.uniform[0]
        x = as_image(self.written(0, points, encoded, selections), skip)
        x = self.merges[0](x) + self.ups[0](uniform)
        x = x + self.cross[0](x, skip)
        return [self.blocks[0](x), *reversed(features)]

    def written(
        self, scale: int, points: Tensor, encoded: Encoded, selections: Sequence[Selection]
    ) -> Tensor:
        """The encoder's points of `scale`; those selected for the next scale are replaced by
        `points`."""
        return put(encoded.points[scale], selections[scale], self.writes[scale](points))


class Drawn(NamedTuple):
    """The inputs of the policy gradient from one stage; see `sampled`."""

    logits: Tensor
    selections: list[Selection]
    log_prob: Tensor


class NonUniformStage(Stage):
    """A stage on sampled points.

    `sampler` computes the logits of G, [N, 1, H, W], and `select` the indices of the highest ones.
    """

    encoder_class = PointEncoder
    decoder_class = PointDecoder

    def __init__(
        self, widths: Sequence[int], encoder_blocks: int, decoder_blocks: int, lower: bool
    ) -> None:
        super().__init__(widths, encoder_blocks, decoder_blocks, lower)
        width = widths[0]
        self.select = nn.ModuleList(BestQuarter() for _ in widths[1:])
        self.sampler = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(
        self,
        image: Tensor,
        lower: Sequence[Tensor],
        selections: Sequence[Selection] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """As `Stage.forward`, at the points with the highest scores unless a selection is given.

        The logits have the same order as G; the sigmoid would only add rounding and saturation.
        """
        if selections is None:
            selections = best(self.sampler(lower[0]), self.select)
        features = self.decoder(self.encoder(image, lower, selections), selections)
        return self.ending(features[0]), features

    def draw(self, lower: Sequence[Tensor]) -> Drawn:
        """Draw a random selection of points for training."""
        logits = self.sampler(lower[0])
        return Drawn(logits, *sampled(logits, len(self.select)))
