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


class SpectralWindows(Padded):
    """A learned filter on the spectra of 8x8 windows, as FFTformer and EVSSM have it."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.rand(3, 1, 1, 8, 5))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        windows = x.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
        spectrum = torch.fft.rfft2(windows.float())
        y = torch.fft.irfft2(spectrum * self.filter, s=(8, 8))
        return y.transpose(3, 4).reshape(b, c, h, w)


class SpectralConvolution(Padded):
    """A convolution of real and imaginary part over the whole image, as DeepRFT and FFC have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="backward")
        parts = torch.cat([spectrum.real, spectrum.imag], 1)
        re, im = torch.chunk(torch.relu(self.conv(parts)), 2, 1)
        return torch.fft.irfft2(torch.complex(re, im), s=x.shape[-2:], norm="backward")


class AmplitudeAndPhase(Padded):
    """Changes the amplitude of all frequencies and keeps their phase."""

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(x, norm="ortho")
        amplitude, phase = spectrum.abs(), spectrum.angle()
        spectrum = amplitude.sqrt() * torch.exp(1j * phase)
        return torch.fft.ifft2(spectrum, norm="ortho").real


class AutoCorrelation(Padded):
    """The power spectrum, and an inverse that is not told the size."""

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="forward")
        return torch.fft.irfft2(spectrum * spectrum.conj())


class Separate(Padded):
    """One axis after the other in both orders, a complex parameter, a smaller and a larger size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 1, 1, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        rows = torch.fft.fft(torch.fft.rfft(x, dim=-1), dim=-2) * self.weight / (2 + 1j)
        y = torch.fft.irfft(torch.fft.ifft(rows, dim=-2), n=w, dim=-1)
        columns = torch.fft.rfftn(x, s=(w + 4, h - 3), dim=(3, 2), norm="ortho")
        z = torch.fft.irfftn(columns, s=(w, h), dim=(3, 2), norm="ortho")
        packed = torch.view_as_real(torch.fft.rfft2(x)).flatten(3).sum(-1, keepdim=True)
        return y + z + packed / (h * w)
