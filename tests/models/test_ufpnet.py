"""UFPNet: official names, the formula of its encoder, noise and training"""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.models import get
from deblur_export.models.blocks.kernel_prior import KernelPrior
from deblur_export.models.blocks.ufp_encoder import KernelAttention, KernelBlock, UFPEncoder
from deblur_export.models.complexity import count_macs, count_parameters
from deblur_export.models.random_weights import randomize
from deblur_export.models.ufpnet import TrainingOutput, UFPNet
from tests.models.test_kernel_prior import conv, estimator_formula
from tests.models.test_nafnet import (
    attention,
    block_formula,
    depthwise,
    filled,
    gate,
    layer_norm,
    pointwise,
    rand,
)
from tests.tolerances import (
    MACS_PURE,
    NETWORK_FLOAT64,
    NOTICEABLE,
    OP_FLOAT64,
    RANDOM_RESIDUAL_STD,
)

SPEC = get("ufpnet")
SMALL = {"width": 4, "encoder_blocks": [1, 1, 1, 2], "kernel_size": 3, "prior_width": 4}
DEAD = ("kernel_down.2.", "kernel_down.3.")
FROZEN = ("kernel_extra.", "flow.")


def small(seed: int = 0) -> UFPNet:
    net = UFPNet(**SMALL)
    randomize(net, SPEC, seed)
    return net.double().eval()


def image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of an official checkpoint for 64 channels, k = 19, without NAFNet's part."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (weight[0] if bias is None else bias,)

    def res_blocks(name: str, c: int) -> None:
        for block in (1, 2):
            for number in (1, 3):
                layer(f"{name}.ResBlock{block}.body.{number}", c, c, 3, 3)

    for number, (before, c) in enumerate(((3, 64), (64, 128)), start=1):
        name = f"kernel_extra.Encoding_Block{number}"
        layer(f"{name}.Conv_head", c, before, 3, 3)
        res_blocks(name, c)
        layer(f"{name}.downsample", c, c, 3, 3)
    for number in (0, 2, 4, 6, 8):
        layer(f"kernel_extra.Conv_mid.body.{number}", 256, 256 if number else 128, 3, 3)
    for number, (before, c) in enumerate(((256, 128), (128, 64)), start=1):
        name = f"kernel_extra.Decoding_Block{number}"
        layer(f"{name}.Conv_t", before, c, 3, 3, bias=c)
        layer(f"{name}.Conv_head", c, 2 * c, 3, 3)
        res_blocks(name, c)
    for tail in ("mean", "var"):
        layer(f"kernel_extra.Conv_tail.{tail}.0", 64, 64, 3, 3)
        layer(f"kernel_extra.Conv_tail.{tail}.2", 361, 64, 3, 3)
    for name in ("kernel_size", "alpha", "normalization"):
        shapes[f"flow.{name}"] = (1,)
    shapes["flow.base_dist_mean"] = shapes["flow.base_dist_var"] = (361,)
    for number in range(0, 10, 2):
        shapes[f"flow.net.{number}.mask"] = (361,)
        for net in ("s_net", "t_net"):
            layer(f"flow.net.{number}.{net}.0", 25, 361)
            layer(f"flow.net.{number}.{net}.2", 25, 25)
            layer(f"flow.net.{number}.{net}.4", 361, 25)
        for leaf in ("log_gamma", "beta", "running_mean", "running_var"):
            shapes[f"flow.net.{number + 1}.{leaf}"] = (361,)
    for level in range(4):
        layer(f"kernel_down.{level}", 361, 361, 2, 2)
    for level in range(3):
        name, c = f"encoders.{level}.0.kernel_atttion", 64 * 2**level
        layer(f"{name}.conv_1.0", c, c, 3, 3)
        layer(f"{name}.conv_kernel.0", c, 361, 3, 3)
        layer(f"{name}.conv_kernel.2", c, c, 3, 3)
        layer(f"{name}.conv_2.0", c, 2 * c, 3, 3)
    return shapes


@cache
def paper() -> UFPNet:
    with torch.device("meta"):
        net: UFPNet = SPEC.build(**SPEC.variants["64"])
        return net.eval()


def test_state_dict_has_the_official_names_and_shapes() -> None:
    with torch.device("meta"):
        nafnet = get("nafnet").build(**get("nafnet").variants["64"]).state_dict()
    expected = {key: tuple(value.shape) for key, value in nafnet.items()} | official_shapes()
    state = paper().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == expected
    assert {value.dtype for value in state.values()} == {torch.float32}
    buffers = {key.rsplit(".", 1)[-1] for key, _ in paper().named_buffers()}
    flow = {"kernel_size", "alpha", "normalization", "base_dist_mean", "base_dist_var"}
    assert buffers == flow | {"mask", "running_mean", "running_var"}


def test_buffers_start_as_in_the_official_code() -> None:
    flow = KernelPrior(3)
    assert flow.get_buffer("kernel_size").tolist() == [3]
    assert flow.alpha.item() == pytest.approx(1e-6)
    assert flow.normalization.tolist() == [1]
    for number in range(5):
        mask = flow.get_buffer(f"net.{2 * number}.mask").tolist()
        assert mask == [(channel + number) % 2 for channel in range(9)]


def test_parameters_and_multiply_adds() -> None:
    """235.56 G in the official code, of which 0.53 G (kernel_down.2) are unused."""
    assert count_parameters(paper()) == 80_343_663
    never_used = 361 * 361 * 4 * 32 * 32
    pure = count_macs(paper(), 256, 256).pure
    assert pure + never_used == pytest.approx(235.564e9, rel=MACS_PURE)


def test_encoder_alone() -> None:
    with torch.device("meta"):
        encoder = UFPEncoder()
    assert count_parameters(encoder) == 74_044_562
    others = ("ups.", "decoders.", "ending.", *DEAD)
    state = paper().state_dict()
    assert encoder.state_dict().keys() == {key for key in state if not key.startswith(others)}


def attention_formula(net: KernelAttention, x: Tensor, kernel: Tensor) -> Tensor:
    p = F.gelu(conv(x, net.conv_1[0]))
    q = F.gelu(conv(F.gelu(conv(kernel, net.conv_kernel[0])), net.conv_kernel[2]))
    return x + p * torch.sigmoid(conv(torch.cat([p, q], dim=1), net.conv_2[0]))


def kernel_block_formula(block: KernelBlock, x: Tensor, kernel: Tensor) -> Tensor:
    """The first residual adds x, not the output of the attention."""
    informed = attention_formula(block.kernel_atttion, x, kernel)
    gated = gate(depthwise(pointwise(layer_norm(informed, block.norm1), block.conv1), block.conv2))
    y = x + block.beta * pointwise(attention(gated, block), block.conv3)
    ffn = pointwise(gate(pointwise(layer_norm(y, block.norm2), block.conv4)), block.conv5)
    return y + block.gamma * ffn


def test_kernel_block() -> None:
    block, x, kernel = filled(KernelBlock(6, 9)), rand(2, 6, 7, 5), rand(2, 9, 7, 5, seed=1)
    expected = kernel_block_formula(block, x, kernel)
    torch.testing.assert_close(block(x, kernel), expected, **OP_FLOAT64)


def network_formula(net: UFPNet, x: Tensor, noise: Tensor) -> Tensor:
    """The whole network on a padded image."""
    code, sigma = estimator_formula(net.kernel_extra, x)
    kernel = net.flow(code * torch.sqrt(1 - sigma**2) + noise * sigma)
    y, skips = conv(x, net.intro), []
    for level, (stage, down) in enumerate(zip(net.encoders, net.downs, strict=True)):
        for block in stage.children():
            if level < 3:
                assert isinstance(block, KernelBlock)
                y = kernel_block_formula(block, y, kernel)
                half = net.kernel_down[level]
                kernel = F.conv2d(kernel, half.weight, half.bias, stride=2)
            else:
                y = block_formula(block, y)
        skips.append(y)
        y = F.conv2d(y, down.weight, down.bias, stride=2)
    for block in net.middle_blks:
        y = block_formula(block, y)
    for up, stage in zip(net.ups, net.decoders, strict=True):
        y = F.pixel_shuffle(F.conv2d(y, up[0].weight), 2) + skips.pop()
        for block in stage.children():
            y = block_formula(block, y)
    return (conv(y, net.ending) + x).clamp(0, 1)


@pytest.mark.parametrize("noisy", [False, True])
def test_network_is_its_stages(noisy: bool) -> None:
    net, x = small(), image(2, 3, 32, 16)
    noise = rand(2, 9, 32, 16) if noisy else torch.zeros(2, 9, 32, 16, dtype=torch.float64)
    with torch.no_grad():
        y = net(x, noise) if noisy else net(x)
        torch.testing.assert_close(y, network_formula(net, x, noise), **NETWORK_FLOAT64)


def test_encoder_returns_the_five_features() -> None:
    net, x = small(), image(1, 3, 32, 48)
    encoder = UFPEncoder(**SMALL).double().eval()
    encoder.load_state_dict({key: net.state_dict()[key] for key in encoder.state_dict()})
    with torch.no_grad():
        features = encoder(x)
        shapes = [tuple(feature.shape) for feature in features]
        assert shapes == [(1, 4 * 2**i, 32 // 2**i, 48 // 2**i) for i in range(5)]
        assert torch.equal(net.decode(features, x), net(x))


@pytest.mark.parametrize("size", [(9, 17), (31, 16), (20, 33)])
def test_padding_mirrors(size: tuple[int, int]) -> None:
    net, x = small(), image(1, 3, *size)
    h, w = size
    padded = F.pad(x, (0, -w % 16, 0, -h % 16), mode="reflect")
    with torch.no_grad():
        assert torch.equal(net(x), net.forward_padded(padded)[..., :h, :w])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16), (33, 17)])
def test_any_size_and_a_batch_is_its_images(size: tuple[int, int]) -> None:
    net, x = small(), image(2, 3, *size)
    with torch.no_grad():
        y = net(x)
        alone = torch.cat([net(x[:1]), net(x[1:])])
    assert y.shape == x.shape
    assert y.isfinite().all()
    torch.testing.assert_close(y, alone, **NETWORK_FLOAT64)


def test_output_is_clamped() -> None:
    with torch.no_grad():
        y = small()(3 * image(1, 3, 16, 16) - 1)
    assert (y.min(), y.max()) == (0, 1)


def test_inference_draws_no_noise() -> None:
    net, x = small(), image(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(net(x), net(x))
        noise = rand(1, 9, 16, 16)
        assert (net(x, noise) - net(x)).abs().max() > NOTICEABLE


@pytest.mark.parametrize("shape", [(1, 9, 20, 16), (1, 1, 32, 16), (2, 9, 32, 16)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="noise has shape"):
        small()(image(1, 3, 20, 16), rand(*shape))


def test_training_forward_is_inference_with_the_same_noise() -> None:
    net, x, noise = small(), image(2, 3, 20, 31), rand(2, 9, 32, 32)
    with torch.no_grad():
        expected, kernel = net(x, noise), net.kernels(F.pad(x, (0, 1, 0, 12), "reflect"), noise)
        output = net.train()(x, noise)
    assert isinstance(output, TrainingOutput)
    torch.testing.assert_close(output.restored, expected, **NETWORK_FLOAT64)
    assert output.kernel.shape == (2, 32 * 32, 3, 3)
    for pixel, (row, column) in ((0, (0, 0)), (32 * 3 + 7, (3, 7))):
        kernel_there = kernel[:, :, row, column].view(2, 3, 3)
        torch.testing.assert_close(output.kernel[:, pixel], kernel_there, **NETWORK_FLOAT64)


def test_training_draws_noise_and_leaves_the_prior_frozen() -> None:
    net, x = small().train(), image(1, 3, 32, 32)
    torch.manual_seed(0)
    first, second = net(x), net(x)
    assert not torch.equal(first.kernel, second.kernel)
    assert not first.kernel.requires_grad
    (first.restored - 0.5).square().mean().backward()
    for name, parameter in net.named_parameters():
        if name.startswith((*FROZEN, *DEAD)):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_every_parameter_but_the_dead_ones_matters() -> None:
    """A change of any tensor changes the output; for those of the prior, the kernels."""
    net, x = small(), 0.3 + 0.4 * image(1, 3, 16, 16)
    with torch.no_grad():
        before, kernels = net(x), net.kernels(x)
        for name, parameter in net.named_parameters():
            kept = parameter.clone()
            parameter.mul_(1.5)
            if name.startswith(FROZEN):
                assert (net.kernels(x) - kernels).abs().max() > NOTICEABLE, name
            elif name.startswith(DEAD):
                assert torch.equal(net(x), before), name
            else:
                assert (net(x) - before).abs().max() > NOTICEABLE, name
            parameter.copy_(kept)


def test_kernels_affect_the_output_of_random_networks() -> None:
    """By more than an 8-bit step, so that comparisons detect a wrong prior."""
    net = SPEC.build(**SPEC.variants["tiny"])
    randomize(net, SPEC, 0)
    net, x = net.double().eval(), image(1, 3, 32, 48)
    with torch.no_grad():
        kernel = net.kernels(x)
        same = kernel.mean(dim=(2, 3), keepdim=True).expand_as(kernel)
        uniform = net.decode(net.encode(x, same), x)
        assert (uniform - net(x)).abs().max() > 1 / 256


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_exercise_every_branch(seed: int) -> None:
    net = SPEC.build(**SPEC.variants["tiny"]).eval()
    randomize(net, SPEC, seed)
    x = image(1, 3, 64, 96, seed=seed)
    for name, parameter in net.named_parameters():
        assert torch.count_nonzero(parameter) == parameter.numel(), name
    with torch.no_grad():
        y = net(x.float())
        kernel, (code, sigma) = net.kernels(x.float()), net.kernel_extra(x.float())
        low, high = RANDOM_RESIDUAL_STD
        assert low < (y - x).std() < high
        assert 0.2 < sigma.min() < sigma.max() < 0.8
        assert code.std(dim=(2, 3)).mean() > 0.1, "pixels differ in their codes"
        assert kernel.std(dim=1).mean() > 0.02
        assert (y - net.double()(x)).abs().max() < 3e-5


def test_local_pooling_has_windows_of_one_and_a_half_crops() -> None:
    net, x = small(), image(1, 3, 64, 48)
    local = UFPNet(**SMALL, train_size=32).double().eval()
    local.load_state_dict(net.state_dict())
    with torch.no_grad():
        inside = x[..., :48, :]
        torch.testing.assert_close(local(inside), net(inside), **NETWORK_FLOAT64)
        assert (local(x) - net(x)).abs().max() > NOTICEABLE
