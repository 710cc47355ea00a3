"""Blocks as foreign networks have them, each a network of a few lines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblur_export.plugins.ops.selective_scan import selective_scan


class Padded(nn.Module):
    """A network whose images have a multiple of its size multiple."""

    def forward_padded(self, x: Tensor) -> Tensor:
        result: Tensor = type(self).forward(self, x)
        return result


class ShiftedWindows(Padded):
    """Attention in shifted 8x8 windows, whose mask is assigned region by region."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        regions = torch.zeros(1, 1, h, w)
        count = 0
        for rows in (slice(0, -8), slice(-8, -4), slice(-4, None)):
            for columns in (slice(0, -8), slice(-8, -4), slice(-4, None)):
                regions[:, :, rows, columns] = count
                count += 1
        labels = self.windows(regions).squeeze(-1)
        apart = labels.unsqueeze(1) - labels.unsqueeze(2)
        mask = apart.masked_fill(apart != 0, -100.0)
        tokens = self.windows(torch.roll(x, (-4, -4), (2, 3)))
        attention = 4 * tokens @ tokens.transpose(1, 2)
        attention = attention.view(b, -1, 64, 64) + mask
        y = attention.view(-1, 64, 64).softmax(-1) @ tokens
        y = y.view(b, h // 8, w // 8, 8, 8, c).permute(0, 5, 1, 3, 2, 4)
        y = y.contiguous().view(b, c, h, w)
        return torch.roll(y, (4, 4), (2, 3))

    @staticmethod
    def windows(x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N * windows, 64, C]."""
        b, c, h, w = x.shape
        cut = x.view(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 3, 5, 1)
        return cut.contiguous().view(-1, 64, c)


class Assignments(Padded):
    """Every kind of assignment to a part of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 1] = x[:, 0] * 2
        y[:, -1, 2:5] = x[:, 0, 3:6]
        y[..., 1::2] = x[..., ::2]
        y[..., -3, :-5:3] = x[..., -2, :-5:3]
        y[:, :, 5:3] = 9
        y[:, :, 6:99, -4:] = 3
        y[x > 0.9] = -1
        y[:, :, x[0, 0] > 0.8] = 7
        return y


class ScanWithoutGate(Padded):
    """A selective scan that leaves out the input in the middle, z, and has the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 8, 1)
        self.A = nn.Parameter(-torch.rand(3, 4))
        self.D, self.bias = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        u = x.flatten(2)
        made = self.project(x).flatten(2).chunk(2, 1)
        y = selective_scan(u, u, self.A, *made, self.D, None, self.bias, delta_softplus=1)
        return y.view(x.shape)
