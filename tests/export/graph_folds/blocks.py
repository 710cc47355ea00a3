"""Blocks as foreign networks have them: what the folds of the captured graph find, and traps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter


class Block(nn.Module):
    """A block that computes `rule`, with modules and parameters of these names."""

    def __init__(self, rule: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.rule = rule
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(self, x)


def numbers(*shape: int) -> Parameter:
    return Parameter(torch.zeros(shape))


def conv(kernel: Any = 1, inputs: int = 3, outputs: int = 3, **options: Any) -> nn.Conv2d:
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    options.setdefault("padding", tuple(side // 2 for side in sides))
    return nn.Conv2d(inputs, outputs, kernel, **options)


def bn() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(3)


class NAFNorm(nn.Module):
    """Over the channels, as the official NAFNet writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = numbers(3), numbers(3)

    def forward(self, x: Tensor) -> Tensor:
        mu = x.mean(1, keepdim=True)
        var = (x - mu).pow(2).mean(1, keepdim=True)
        y = (x - mu) / (var + 1e-6).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class LastAxisNorm(nn.Module):
    """Over the last axis of tokens, as Restormer writes it, with or without a bias."""

    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.weight = numbers(3)
        self.bias = numbers(3) if biased else None

    def forward(self, image: Tensor) -> Tensor:
        n, c, h, w = image.shape
        x = image.permute(0, 2, 3, 1).reshape(n, h * w, c)
        sigma = x.var(-1, keepdim=True, unbiased=False)
        if self.bias is None:
            y = x / torch.sqrt(sigma + 1e-5) * self.weight
        else:
            y = (x - x.mean(-1, keepdim=True)) / torch.sqrt(sigma + 1e-5) * self.weight + self.bias
        return y.reshape(n, h, w, c).permute(0, 3, 1, 2)


def rsqrt_norm(_: nn.Module, x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + 1e-5)


def unbiased_norm(_: nn.Module, x: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True) + 1e-5)


def rows_norm(_: nn.Module, x: Tensor) -> Tensor:
    centred = x - x.mean(2, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(2, keepdim=True) + 1e-5)


def shown_deviation(_: nn.Module, x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    deviation = torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    return centred / deviation + deviation


def repvgg() -> nn.Module:
    return Block(
        lambda m, x: F.relu(m.b3(m.c3(x)) + m.b1(m.c1(x)) + m.b0(x)),
        c3=conv(3, bias=False),
        c1=conv(bias=False),
        b3=bn(),
        b1=bn(),
        b0=bn(),
    )


def acb() -> nn.Module:
    return Block(
        lambda m, x: m.bs(m.square(x)) + m.bv(m.vertical(x)) + m.bh(m.horizontal(x)),
        square=conv(3, bias=False),
        vertical=conv((3, 1), bias=False),
        horizontal=conv((1, 3), bias=False),
        bs=bn(),
        bv=bn(),
        bh=bn(),
    )


def ecb(m: Any, x: Tensor) -> Tensor:
    """3x3, 1x1 then 3x3 on a padded input, and a scaled edge filter, which is depth-wise."""
    edges = F.conv2d(m.before(x), m.scale * m.edge, m.shift, padding=1, groups=3)
    return m.c3(x) + m.valid(m.wide(F.pad(x, (1, 1, 1, 1)))) + edges + x


def ecb_block() -> nn.Module:
    return Block(
        ecb,
        c3=conv(3),
        wide=conv(1, 3, 6),
        valid=conv(3, 6, 3, padding=0),
        before=conv(bias=False),
        scale=numbers(3, 1, 1, 1),
        edge=numbers(3, 1, 3, 3),
        shift=numbers(3),
    )


def written_before(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    y[:, :, :2] += 1
    return m.bn(y)  # type: ignore[no-any-return]


def written_after(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    z = m.scale * y
    y[:, :, :2] += 1
    return z + y  # type: ignore[no-any-return]


def randomized(net: nn.Module) -> nn.Module:
    """With all parameters and statistics random, in eval mode."""
    torch.manual_seed(0)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if name.endswith("var") else value.normal_()
    return net.eval()
