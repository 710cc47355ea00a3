"""Point sets of SAPHN's non-uniform stages: their selection and their features.

A list of points is [N, L, C]. Scale r selects L = HW / r^2 of the H x W pixels of a stage's patch.
All scales use the same score map, so that the sets are nested: a scale consists of the quarter of
the previous list with the highest scores. In training each pixel of that list is selected with
probability G instead, and the lists of a batch are padded to the same length (`valid`). Points do
not interact, so that padding has no effect as long as it is not written back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models.blocks.decision import Decision, Inputs
from deblur_export.models.blocks.saphn_attention import Siblings
from deblur_export.plugins.ops.top_pixels import top_pixels

CENTRE = 4  # the middle tap of 3x3
STEPS = 1024  # scores are rounded to 1 / STEPS of a logit before they are ranked


class Selection(NamedTuple):
    """The points of one scale.

    Attributes:
        number: [N, L], index into the list of the previous scale; at the first scale, of the pixel.
        pixel: [N, L], y * W + x at full size.
        valid: [N, L], bool, False for padding; None if there is no padding.
    """

    number: Tensor
    pixel: Tensor
    valid: Tensor | None = None


class BestQuarter(Decision):
    """Indices, ascending, of the quarter of the pixels with the highest scores, which are in units
    of 1 / STEPS of a logit."""

    tolerance = 2 / STEPS  # a score and the threshold may each be rounded to the next step
    min_flips = 2  # one pixel is replaced by another

    def forward(self, scores: Tensor) -> Tensor:
        """[N, 1, H, W] -> [N, H*W/4]."""
        return top_pixels(scores, ratio=2)  # type: ignore[no-any-return]

    def is_choice(self, own: Tensor, other: Tensor) -> bool:
        ascending = bool((other.diff(dim=1) > 0).all())
        return ascending and bool(((other >= 0) & (other < 4 * own.shape[1])).all())

    def differences(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        nothing = torch.zeros_like(inputs[0].flatten(1), dtype=torch.bool)
        return nothing.scatter(1, own, True) ^ nothing.scatter(1, other, True)

    def distance(self, inputs: Inputs, own: Tensor, other: Tensor) -> Tensor:
        """[N, H*W], distance to the lowest score of the own choice in units of a logit."""
        listed: Tensor = inputs[0].flatten(1)
        lowest = listed.gather(1, own).amin(dim=1, keepdim=True)
        return (listed - lowest).abs() / STEPS


def best(scores: Tensor, quarters: Iterable[nn.Module]) -> list[Selection]:
    """Select points at test time: from scores [N, 1, H, W] the highest quarter, of that again the
    highest quarter, and so on."""
    chosen: list[Selection] = []
    # Flat regions have equal scores except for rounding, which differs between machines.
    scores = (scores * STEPS).round()
    for quarter in quarters:
        number = quarter(scores)
        pixel = pick(chosen[-1].pixel.unsqueeze(2), number).squeeze(2) if chosen else number
        chosen.append(Selection(number, pixel))
        n, _, height, width = scores.shape
        scores = pick(as_rows(scores), number).view(n, 1, height // 2, width // 2)
    return chosen


def sampled(logits: Tensor, scales: int) -> tuple[list[Selection], Tensor]:
    """Draw points in training with probability G = sigmoid(logits), [N, 1, H, W].

    Returns:
        The selections, and the log-probability of each pixel's draws, [N, 1, H, W]: the sum over
        the scales at which the pixel was in the list.
    """
    listed = logits.flatten(1)
    pixel = torch.arange(listed.shape[1], device=logits.device).expand(listed.shape)
    valid = torch.ones_like(listed, dtype=torch.bool)
    chosen: list[Selection] = []
    log_prob = torch.zeros_like(listed)
    for _ in range(scales):
        drawn = valid & (torch.rand_like(listed) < listed.detach().sigmoid())
        chance = F.logsigmoid(torch.where(drawn, listed, -listed)) * valid
        log_prob = log_prob.scatter_add(1, pixel, chance)
        number, valid = padded_lists(drawn)
        pixel, listed = pixel.gather(1, number), listed.gather(1, number)
        chosen.append(Selection(number, pixel, valid))
    return chosen, log_prob.view_as(logits)


def padded_lists(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Flags [N, L], bool -> indices of the set flags, ascending, padded to the same length; and
    which of them are valid, not padding."""
    counts = flags.sum(1, keepdim=True)
    length = max(int(counts.max()), 1)
    number = flags.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :length]
    return number, torch.arange(length, device=flags.device) < counts


def pick(rows: Tensor, number: Tensor) -> Tensor:
    """rows [N, L, C] at number [N, K] -> [N, K, C]."""
    n, length, channels = rows.shape
    chosen = rows.reshape(n * length, channels).index_select(0, flat(number, length))
    return chosen.view(n, number.shape[1], channels)


def put(rows: Tensor, chosen: Selection, values: Tensor) -> Tensor:
    """A copy of rows [N, L, C] with values [N, K, C] at the chosen places."""
    n, length, channels = rows.shape
    if chosen.valid is not None:  # fillers go to a row of their own
        rows = F.pad(rows, (0, 0, 0, 1))
        number = chosen.number.where(chosen.valid, length)
        return put(rows, Selection(number, chosen.pixel), values)[:, :length]
    place = flat(chosen.number, length)
    flat_rows = rows.reshape(n * length, channels)
    written = flat_rows.index_put((place,), values.reshape(place.shape[0], channels))
    return written.view(n, length, channels)


def flat(number: Tensor, length: int) -> Tensor:
    """Numbers [N, K] within each of N lists of `length` -> [N*K] in all of them."""
    first = torch.arange(number.shape[0], device=number.device) * length
    return (number + first.unsqueeze(1)).flatten()


def as_rows(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H*W, C]."""
    return x.flatten(2).transpose(1, 2)


def as_image(rows: Tensor, like: Tensor) -> Tensor:
    """[N, H*W, C] -> [N, C, H, W], the shape of `like`."""
    return rows.transpose(1, 2).reshape(like.shape)


class Grid(NamedTuple):
    """The projected features of the finer scale around the points of a scale.

    Attributes:
        x: [N, C, h, w].
        cell: [N, L], index of the pixel of x that contains each point.
        rim: [N, L, 8C], the eight neighbours of that pixel.
    """

    x: Tensor
    cell: Tensor
    rim: Tensor


def grid_around(x: Tensor, pixel: Tensor, step: int) -> Grid:
    """The grid around points.

    Args:
        x: [N, C, h, w]; each of its pixels covers step x step pixels at full size.
        pixel: [N, L], indices of the points at full size.
        step: the factor between the sizes.
    """
    n, channels, height, width = x.shape
    row, column = coordinates(pixel, height * step, width * step, step)
    padded = as_rows(F.pad(x, (1, 1, 1, 1))).reshape(-1, channels)
    corner = flat(row * (width + 2) + column, (height + 2) * (width + 2))
    taps = torch.arange(9, device=x.device)
    taps = torch.cat([taps[:CENTRE], taps[CENTRE + 1 :]])
    around = corner.unsqueeze(1) + (taps // 3 * (width + 2) + taps % 3)
    rim = padded.index_select(0, around.flatten()).view(n, pixel.shape[1], 8 * channels)
    return Grid(x, row * width + column, rim)


def coordinates(pixel: Tensor, height: int, width: int, step: int) -> tuple[Tensor, Tensor]:
    """Row and column of pixel indices [N, L] in a grid that is smaller by `step`.

    They are looked up in tables, because torch.onnx cannot divide by a size that is only known when
    the network runs.
    """
    rows = torch.arange(height, device=pixel.device).unsqueeze(1) // step
    columns = torch.arange(width, device=pixel.device) // step
    row, column = (
        table.expand(height, width).flatten().index_select(0, pixel.flatten()).view(pixel.shape)
        for table in (rows, columns)
    )
    return row, column


class PointSiblings(Siblings):
    """3x3 convolutions at points: the centre tap reads the point, the others read the grid.

    After merging, `centre` and `rim` hold the taps as matrices.
    """

    centre: nn.Linear | None
    rim: nn.Linear | None

    def __init__(self, channels: int, outputs: Mapping[str, int]) -> None:
        super().__init__(channels, outputs)
        self.centre = None
        self.rim = None

    @property
    def is_merged(self) -> bool:
        return self.centre is not None

    def at(self, points: Tensor, grid: Grid) -> Sequence[Tensor]:
        """points [N, L, C] -> [N, L, outputs] for each name, in order."""
        if self.centre is not None and self.rim is not None:
            y = self.centre(points) + self.rim(grid.rim)
        else:
            centre, rim, bias = self.matrices()
            y = F.linear(points, centre, bias) + F.linear(grid.rim, rim)
        return y.split(self.sizes, dim=2)  # type: ignore[no-any-return]

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix of the centre tap [O, C], that of the others [O, 8C], tap-major, and the
        bias."""
        weight, bias = self.stacked()
        taps = weight.flatten(2).transpose(1, 2)
        others = torch.cat([taps[:, :CENTRE], taps[:, CENTRE + 1 :]], dim=1)
        return taps[:, CENTRE], others.flatten(1), bias

    def merge(self) -> None:
        centre, rim, bias = self.matrices()
        self.drop()
        self.centre = linear(centre, bias)
        self.rim = linear(rim, None)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with this weight and bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach())
    return layer
