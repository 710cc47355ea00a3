"""A small U-Net in plain PyTorch, as a stranger's repository may have it: it knows nothing of
deblur-export. docs/your-network.md takes it from here to a verified file."""

import torch
from torch import nn


class LayerNorm2d(nn.Module):
    """Normalizes over the channels of [N, C, H, W], written out."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt() * self.weight + self.bias


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.spread = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.join = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        a, b = self.spread(self.norm(x)).chunk(2, dim=1)
        product = a * b
        return x + self.scale * self.join(product * self.gate(product))


class UNet(nn.Module):
    """[N, 3, H, W] in 0..1 to the same; height and width are multiples of 4."""

    def __init__(self, width=16, blocks=(1, 1, 1)):
        super().__init__()
        sizes = [width << level for level in range(len(blocks))]
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self.encoders = nn.ModuleList(
            nn.Sequential(*(Block(size) for _ in range(count)))
            for size, count in zip(sizes, blocks, strict=False)
        )
        self.downs = nn.ModuleList(nn.Conv2d(size, 2 * size, 2, stride=2) for size in sizes[:-1])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * size, 4 * size, 1), nn.PixelShuffle(2))
            for size in sizes[:-1]
        )

    def forward(self, image):
        x, kept = self.first(image), []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            x = encoder(x)
            kept.append(x)
            x = down(x)
        x = self.encoders[-1](x)
        for up, skip in zip(reversed(self.ups), reversed(kept), strict=False):
            x = up(x) + skip
        return image + self.last(x)
