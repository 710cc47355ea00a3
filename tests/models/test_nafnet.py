"""NAFNet: official names, padding, and every formula of its block."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models import get
from deblur_export.models.blocks.naf import (
    GlobalAveragePool,
    LayerNorm2d,
    NAFBlock,
    SimpleGate,
    add_scaled,
)
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.nafnet import NAFNet
from deblur_export.models.random_weights import randomize
from tests.tolerances import NETWORK_FLOAT64, NOTICEABLE, OP_FLOAT64

ModuleT = TypeVar("ModuleT", bound=nn.Module)

WIDTH = 4
ENCODER, MIDDLE, DECODER = (1, 2, 1, 3), 2, (2, 1, 1, 1)


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def filled(module: ModuleT, seed: int = 0) -> ModuleT:
    """The module in float64, every parameter normally distributed."""
    for number, parameter in enumerate(module.parameters()):
        parameter.data = rand(*parameter.shape, seed=1000 * seed + number)
    return module


def layer_norm(x: Tensor, norm: LayerNorm2d) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    y = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    assert norm.weight is not None and norm.bias is not None
    return y * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    y = torch.einsum("nchw,oc->nohw", x, conv.weight[:, :, 0, 0])
    return y + conv.bias.view(1, -1, 1, 1)


def depthwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Sum over nine shifted copies of the zero-padded image."""
    assert conv.bias is not None
    height, width = x.shape[-2:]
    padded = torch.zeros(*x.shape[:2], height + 2, width + 2, dtype=x.dtype)
    padded[..., 1:-1, 1:-1] = x
    y = conv.bias.view(1, -1, 1, 1).expand_as(x).clone()
    for dy in range(3):
        for dx in range(3):
            tap = conv.weight[:, 0, dy, dx].view(1, -1, 1, 1)
            y += tap * padded[..., dy : dy + height, dx : dx + width]
    return y


def gate(x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    return x[:, :half] * x[:, half:]


def attention(x: Tensor, block: NAFBlock) -> Tensor:
    conv = block.sca[1]
    assert isinstance(conv, nn.Conv2d)
    return x * pointwise(x.mean(dim=(2, 3), keepdim=True), conv)


def block_formula(block: NAFBlock, x: Tensor) -> Tensor:
    gated = gate(depthwise(pointwise(layer_norm(x, block.norm1), block.conv1), block.conv2))
    y = x + block.beta * pointwise(attention(gated, block), block.conv3)
    ffn = pointwise(gate(pointwise(layer_norm(y, block.norm2), block.conv4)), block.conv5)
    return y + block.gamma * ffn


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official checkpoints, for this file's configuration."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, each: int, kernel: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, each, kernel, kernel)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def block(name: str, c: int) -> None:
        for leaf, out, each, kernel in (
            ("conv1", 2 * c, c, 1),
            ("conv2", 2 * c, 1, 3),
            ("conv3", c, c, 1),
            ("sca.1", c, c, 1),
            ("conv4", 2 * c, c, 1),
            ("conv5", c, c, 1),
        ):
            conv(f"{name}.{leaf}", out, each, kernel)
        for norm in ("norm1", "norm2"):
            shapes[f"{name}.{norm}.weight"] = shapes[f"{name}.{norm}.bias"] = (c,)
        shapes[f"{name}.beta"] = shapes[f"{name}.gamma"] = (1, c, 1, 1)

    conv("intro", WIDTH, 3, 3)
    conv("ending", 3, WIDTH, 3)
    for level in range(4):
        c = WIDTH * 2**level
        conv(f"downs.{level}", 2 * c, c, 2)
        for number in range(ENCODER[level]):
            block(f"encoders.{level}.{number}", c)
        c = WIDTH * 2 ** (4 - level)  # the decoder goes up from 16 * WIDTH
        conv(f"ups.{level}.0", 2 * c, c, 1, bias=False)
        for number in range(DECODER[level]):
            block(f"decoders.{level}.{number}", c // 2)
    for number in range(MIDDLE):
        block(f"middle_blks.{number}", 16 * WIDTH)
    return shapes


def network() -> NAFNet:
    net = NAFNet(WIDTH, ENCODER, MIDDLE, DECODER)
    randomize(net, get("nafnet"), 0)
    return net.double().eval()


def test_state_dict_has_the_official_names_and_shapes() -> None:
    state = NAFNet(WIDTH, ENCODER, MIDDLE, DECODER).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == official_shapes()


def test_residual_scales_start_at_zero() -> None:
    """As in the official code: an untrained block is the identity."""
    block, x = NAFBlock(3).double(), rand(1, 3, 4, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 3, 4), (1, 64, 2, 2)])
def test_layer_norm(shape: tuple[int, ...]) -> None:
    norm = filled(LayerNorm2d(shape[1]))
    x = 3 + 2 * rand(*shape, seed=1)
    torch.testing.assert_close(norm(x), layer_norm(x, norm), **OP_FLOAT64)


def test_layer_norm_keeps_eps_and_biased_variance() -> None:
    """Two channels +-a: biased variance a^2, so the result is a / sqrt(a^2 + 1e-6)."""
    norm = LayerNorm2d(2).double()
    a = 1e-3
    y = norm(torch.tensor([a, -a], dtype=torch.float64).view(1, 2, 1, 1))
    torch.testing.assert_close(y[0, 0, 0, 0].item(), 0.5**0.5, **OP_FLOAT64)


def test_layer_norm_without_affine_part() -> None:
    norm = LayerNorm2d(5).double()
    x = rand(2, 5, 3, 4)
    expected = layer_norm(x, norm)  # weight 1, bias 0
    norm.weight = norm.bias = None
    torch.testing.assert_close(norm(x), expected, **OP_FLOAT64)


def test_gate_and_pool() -> None:
    x = rand(2, 6, 3, 4)
    torch.testing.assert_close(SimpleGate()(x), gate(x), **OP_FLOAT64)
    pooled = torch.stack([image.sum(dim=(1, 2)) / 12 for image in x])[..., None, None]
    torch.testing.assert_close(GlobalAveragePool()(x), pooled, **OP_FLOAT64)


def test_add_scaled() -> None:
    x, branch, scale = rand(1, 3, 2, 2), rand(1, 3, 2, 2, seed=1), rand(1, 3, 1, 1, seed=2)
    torch.testing.assert_close(add_scaled(x, branch, scale), x + scale * branch, **OP_FLOAT64)
    torch.testing.assert_close(add_scaled(x, branch, None), x + branch, **OP_FLOAT64)


@pytest.mark.parametrize("shape", [(2, 6, 7, 5), (1, 3, 1, 1)])
def test_block(shape: tuple[int, ...]) -> None:
    block, x = filled(NAFBlock(shape[1])), rand(*shape, seed=9)
    torch.testing.assert_close(block(x), block_formula(block, x), **OP_FLOAT64)


def test_network_is_its_stages() -> None:
    """Skip connections are added in reverse order, the pixel shuffle follows the 1x1, and the input
    is added last."""
    net, x = network(), rand(1, 3, 32, 16, seed=4)

    def stage(blocks: nn.Module, y: Tensor) -> Tensor:
        for block in blocks.children():
            assert isinstance(block, NAFBlock)
            y = block_formula(block, y)
        return y

    with torch.no_grad():
        y, skips = F.conv2d(x, net.intro.weight, net.intro.bias, padding=1), []
        for level in range(4):
            skips.append(stage(net.encoders[level], y))
            y = F.conv2d(skips[-1], net.downs[level].weight, net.downs[level].bias, stride=2)
        y = stage(net.middle_blks, y)
        for level in range(4):
            n, _, h, w = y.shape
            wide = torch.einsum("nchw,oc->nohw", y, net.ups[level][0].weight[:, :, 0, 0])
            wide = wide.view(n, -1, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
            y = stage(net.decoders[level], wide.reshape(n, -1, 2 * h, 2 * w) + skips[3 - level])
        y = F.conv2d(y, net.ending.weight, net.ending.bias, padding=1) + x
        torch.testing.assert_close(net(x), y, **NETWORK_FLOAT64)


@pytest.mark.parametrize(
    ("size", "padded"),
    [((1, 1), (16, 16)), ((16, 32), (16, 32)), ((17, 31), (32, 32)), ((15, 49), (16, 64))],
)
def test_padding_is_zeros_on_the_right_and_bottom(
    size: tuple[int, int], padded: tuple[int, int]
) -> None:
    x = 1 + rand(1, 3, *size).abs()
    y = pad_to_multiple(x, 16)
    assert y.shape == (1, 3, *padded)
    assert torch.equal(y[..., : size[0], : size[1]], x)
    assert torch.count_nonzero(y) == x.numel()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 32), (17, 31)])
def test_forward_is_pad_compute_crop(size: tuple[int, int]) -> None:
    net, x = network(), rand(2, 3, *size)
    canvas = torch.zeros(2, 3, -(-size[0] // 16) * 16, -(-size[1] // 16) * 16, dtype=x.dtype)
    canvas[..., : size[0], : size[1]] = x
    with torch.no_grad():
        y = net(x)
        torch.testing.assert_close(
            y, net.forward_padded(canvas)[..., : size[0], : size[1]], **NETWORK_FLOAT64
        )
        alone = torch.cat([net(x[:1]), net(x[1:])])
    torch.testing.assert_close(y, alone, **NETWORK_FLOAT64)


def test_output_is_not_clamped() -> None:
    net, x = network(), 5 * rand(1, 3, 16, 16)
    with torch.no_grad():
        y = net(x)
    assert y.min() < -1 < 2 < y.max()


def test_every_parameter_matters() -> None:
    net, x = network(), rand(1, 3, 16, 32).abs()
    with torch.no_grad():
        before = net(x)
        for name, parameter in net.named_parameters():
            kept = parameter.clone()
            parameter.mul_(1.5)
            assert (net(x) - before).abs().max() > NOTICEABLE, name
            parameter.copy_(kept)
