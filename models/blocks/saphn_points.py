"""Point sets of SAPHN's non-uniform stages: which pixels are kept, their features, their values.

A list of points is [N, L, C]. Scale r keeps L = HW / r^2 of the H x W pixels of a stage's patch.
One score map serves all scales, so that the sets are nested, and a scale is the best quarter of
the list before it. In training each pixel of that list survives with probability G instead, and
lists of different length are filled up (`valid`). Points do not act on each other, so that a
filler changes nothing as long as it is not written back.
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
STEPS = 1024  # steps of a logit within which scores count as equal


class Selection(NamedTuple):
    """The points of one scale.

    number [N, L]: place in the list of the scale before (at first: pixel number); pixel [N, L]:
    y * W + x at full size; valid [N, L] bool, or None when every entry is one.
    """

    number: Tensor
    pixel: Tensor
    valid: Tensor | None = None


class BestQuarter(Decision):
    """Numbers of the best quarter of the pixels, ascending; scores in 1/STEPS of a logit."""

    tolerance = 2 / STEPS  # a score and the border may each be rounded to the next step
    least = 2  # one pixel leaves, another comes

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
        """[N, H*W], to the lowest score of one's own choice, in logits."""
        listed: Tensor = inputs[0].flatten(1)
        lowest = listed.gather(1, own).amin(dim=1, keepdim=True)
        return (listed - lowest).abs() / STEPS


def best(scores: Tensor, quarters: Iterable[nn.Module]) -> list[Selection]:
    """Test-time selection: scores [N, 1, H, W] -> the best quarter, of it the best quarter, ..."""
    chosen: list[Selection] = []
    # Flat regions score the same but for rounding, which differs from one machine to another.
    scores = (scores * STEPS).round()
    for quarter in quarters:
        number = quarter(scores)
        pixel = pick(chosen[-1].pixel.unsqueeze(2), number).squeeze(2) if chosen else number
        chosen.append(Selection(number, pixel))
        n, _, height, width = scores.shape
        scores = pick(as_rows(scores), number).view(n, 1, height // 2, width // 2)
    return chosen


def sampled(logits: Tensor, scales: int) -> tuple[list[Selection], Tensor]:
    """Training-time selection by G = sigmoid(logits), [N, 1, H, W].

    Returns:
        The selections, and the log-probability of having drawn them, [N].
    """
    listed = logits.flatten(1)
    pixel = torch.arange(listed.shape[1], device=logits.device).expand(listed.shape)
    alive = torch.ones_like(listed, dtype=torch.bool)
    chosen: list[Selection] = []
    log_prob = logits.new_zeros(len(logits))
    for _ in range(scales):
        kept = alive & (torch.rand_like(listed) < listed.detach().sigmoid())
        log_prob = log_prob + (F.logsigmoid(torch.where(kept, listed, -listed)) * alive).sum(1)
        number, alive = padded_lists(kept)
        pixel, listed = pixel.gather(1, number), listed.gather(1, number)
        chosen.append(Selection(number, pixel, alive))
    return chosen, log_prob


def padded_lists(kept: Tensor) -> tuple[Tensor, Tensor]:
    """Flags [N, L] -> numbers of the set ones, ascending, and which of them are no filler."""
    counts = kept.sum(1, keepdim=True)
    length = max(int(counts.max()), 1)
    number = kept.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :length]
    return number, torch.arange(length, device=kept.device) < counts


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
    """What the points of one scale see around them: the feature of the finer scale, projected.

    x [N, C, h, w]; cell [N, L] the pixel of x a point lies in; rim [N, L, 8C] its neighbours.
    """

    x: Tensor
    cell: Tensor
    rim: Tensor


def grid_around(x: Tensor, pixel: Tensor, step: int) -> Grid:
    """x has one pixel for step x step of those that `pixel` numbers."""
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
    """Row and column of pixel numbers [N, L] in a grid with one pixel for step x step.

    By tables: torch.onnx cannot divide by a size that is not known before the network runs.
    """
    rows = torch.arange(height, device=pixel.device).unsqueeze(1) // step
    columns = torch.arange(width, device=pixel.device) // step
    row, column = (
        table.expand(height, width).flatten().index_select(0, pixel.flatten()).view(pixel.shape)
        for table in (rows, columns)
    )
    return row, column


class PointSiblings(Siblings):
    """3x3 convolutions at points: the middle tap takes the point, the others the grid's pixels.

    Once merged, `centre` and `rim` hold the taps as matrices.
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
        """points [N, L, C] -> one [N, L, outputs] a name."""
        if self.centre is not None and self.rim is not None:
            y = self.centre(points) + self.rim(grid.rim)
        else:
            centre, rim, bias = self.matrices()
            y = F.linear(points, centre, bias) + F.linear(grid.rim, rim)
        return y.split(self.sizes, dim=2)  # type: ignore[no-any-return]

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the middle tap [O, C] and of the others [O, 8C], tap-major, and the bias."""
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
    """A layer with this weight and bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach())
    return layer
