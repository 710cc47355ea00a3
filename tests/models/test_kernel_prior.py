"""The kernel prior of UFPNet compared with the formulas of the paper and the official code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models import get
from deblur_export.models.blocks.kernel_prior import (
    CodeEstimator,
    Coupling,
    FlowBatchNorm,
    KernelPrior,
    standardized_softmax,
)
from deblur_export.models.blocks.ufp_encoder import UFPEncoder
from deblur_export.models.random_weights import randomize
from tests.models.test_nafnet import rand
from tests.tolerances import OP_FLOAT64


def prior() -> UFPEncoder:
    net = UFPEncoder(width=4, encoder_blocks=[1, 1, 1, 2], kernel_size=3, prior_width=4)
    randomize(net, get("ufpnet"), 0)
    return net.double().eval()


def conv(x: Tensor, layer: nn.Module, stride: int = 1) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    return F.conv2d(x, layer.weight, layer.bias, stride, layer.weight.shape[-1] // 2)


def res_blocks(x: Tensor, part: nn.Module) -> Tensor:
    for block in ("ResBlock1", "ResBlock2"):
        first, second = (part.get_submodule(f"{block}.body.{n}") for n in (1, 3))
        x = x + conv(F.relu(conv(F.relu(x), first)), second)
    return F.relu(x)


def doubled(x: Tensor, layer: nn.Module) -> Tensor:
    """Transposed convolution: zeros between the pixels, then the flipped kernel."""
    n, c, h, w = x.shape
    sparse = torch.zeros(n, c, 2 * h, 2 * w, dtype=x.dtype)
    sparse[..., ::2, ::2] = x
    assert isinstance(layer, nn.ConvTranspose2d)
    kernel = layer.weight.transpose(0, 1).flip(2, 3)
    return F.conv2d(sparse, kernel, layer.bias, padding=1)


def estimator_formula(net: CodeEstimator, x: Tensor) -> tuple[Tensor, Tensor]:
    skips = []
    for part in (net.Encoding_Block1, net.Encoding_Block2):
        skips.append(res_blocks(conv(x, part.Conv_head), part))
        x = conv(skips[-1], part.downsample, stride=2)
    for number in range(0, 10, 2):
        x = F.relu(conv(x, net.Conv_mid.body[number]))
    for part in (net.Decoding_Block1, net.Decoding_Block2):
        joined = torch.cat([doubled(x, part.Conv_t), skips.pop()], dim=1)
        x = res_blocks(conv(joined, part.Conv_head), part)
    mean, var = (conv(F.relu(conv(x, tail[0])), tail[2]) for tail in net.Conv_tail.children())
    code = torch.softmax(mean, dim=1)
    code = (code - code.mean(dim=1, keepdim=True)) / code.std(dim=1, keepdim=True)
    return code, torch.sigmoid(var).mean(dim=1, keepdim=True)


def test_code_estimator() -> None:
    net, x = prior().kernel_extra, rand(2, 3, 16, 24)
    with torch.no_grad():
        for result, expected in zip(net(x), estimator_formula(net, x), strict=True):
            torch.testing.assert_close(result, expected, **OP_FLOAT64)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_standardized_softmax(size: float) -> None:
    """Also where the softmax itself would round to 0 and 1."""
    logits = size * rand(2, 361, 3, 4)
    code = torch.softmax(logits, dim=1)
    code = (code - code.mean(dim=1, keepdim=True)) / code.std(dim=1, keepdim=True)
    torch.testing.assert_close(standardized_softmax(logits), code, rtol=1e-8, atol=1e-9)


def test_standardized_softmax_is_accurate_in_float32() -> None:
    logits = rand(1, 361, 8, 8)
    exact, rounded = standardized_softmax(logits), standardized_softmax(logits.float())
    torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=1e-5)


def perceptron(net: nn.Sequential, rows: Tensor, name: str) -> Tensor:
    for number in (0, 2, 4):
        layer = net[number]
        assert isinstance(layer, nn.Linear)
        rows = rows @ layer.weight.T + layer.bias
        if number < 4:
            rows = torch.tanh(rows) if name == "s" else rows.clamp(min=0)
    return rows


def flow_forward(flow: KernelPrior, kernel: Tensor) -> Tensor:
    """From kernel to code, as in training (RealNVP Eq. 6 to 8); rows are pixels."""
    u = kernel.permute(0, 2, 3, 1) / flow.normalization
    u = torch.logit(u * (1 - 2 * flow.alpha) + flow.alpha)
    for layer in flow.net:
        if isinstance(layer, Coupling):
            kept = layer.mask * u
            log_s, t = perceptron(layer.s_net, kept, "s"), perceptron(layer.t_net, kept, "t")
            u = kept + (1 - layer.mask) * (u - t) * torch.exp(-log_s)
        else:
            assert isinstance(layer, FlowBatchNorm)
            u = (u - layer.running_mean) / (layer.running_var + 1e-5).sqrt()
            u = layer.log_gamma.exp() * u + layer.beta
    return u.permute(0, 3, 1, 2)


def test_flow_inverts_the_published_one() -> None:
    flow, z = prior().flow, rand(2, 9, 3, 5)
    assert isinstance(flow, KernelPrior)
    flow.normalization.fill_(0.7)
    with torch.no_grad():
        kernel = flow(z)
        torch.testing.assert_close(flow_forward(flow, kernel), z, rtol=1e-8, atol=1e-8)
    assert 0 < kernel.min() < kernel.max() < 0.7
    assert kernel.std() > 0.02
