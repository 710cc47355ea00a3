"""ALGNet: official names and figures, formulas, training outputs and random weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deblur_export.models import get
from deblur_export.models.algnet import ALGNet, TrainingOutput
from deblur_export.models.blocks.algnet_block import (
    ALGBlock,
    GlobalLayer,
    InstanceNorm2d,
    LocalLayer,
    ShallowFeatures,
)
from deblur_export.models.blocks.mamba import Mamba
from deblur_export.models.checkpoint import load_model
from deblur_export.models.complexity import count_macs, count_parameters
from deblur_export.models.random_weights import randomize
from tests.models.test_mamba import mamba_formula
from tests.models.test_nafnet import depthwise, filled, gate, layer_norm, pointwise, rand
from tests.tolerances import (
    MACS_PURE,
    NETWORK_FLOAT64,
    NOTICEABLE,
    OP_FLOAT64,
    RANDOM_RESIDUAL_STD,
)

SPEC = get("algnet")
SMALL: dict[str, Any] = {
    "width": 4,
    "encoder_blocks": (1, 2, 1, 1),
    "middle_blocks": 2,
    "decoder_blocks": (1, 1, 2, 1),
}
SCAN = torch.ops.deblur.selective_scan
UNUSED = ("gamma", "conv3_2.weight", "conv3_2.bias")
CANCELLED = ".main.3.main.0.bias"  # the instance normalization after it removes it


def small(seed: int = 0, **options: Any) -> ALGNet:
    net = ALGNet(**SMALL, **options)
    randomize(net, SPEC, seed)
    return net.double().eval()


def image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def on_meta(variant: str) -> nn.Module:
    with torch.device("meta"):
        return SPEC.build(**SPEC.variants[variant]).to("meta").eval()


def is_unused(name: str) -> bool:
    return name.endswith(UNUSED)


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official checkpoints, for `SMALL`."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, each: int, kernel: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, each, kernel, kernel)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def block(name: str, c: int) -> None:
        for leaf, out, each, kernel in (
            ("conv1", 2 * c, c, 1),
            ("conv2", 2 * c, 1, 3),
            ("conv3_2", c, 2 * c, 1),
            ("conv4", 2 * c, c, 1),
            ("conv5", c, c, 1),
            ("l_layer.conv1", c, c, 1),
            ("l_layer.conv2", c, c, 1),
        ):
            conv(f"{name}.{leaf}", out, each, kernel)
        for norm in ("norm1", "norm2", "g_layer.norm"):
            shapes[f"{name}.{norm}.weight"] = shapes[f"{name}.{norm}.bias"] = (c,)
        shapes[f"{name}.gamma"] = shapes[f"{name}.beta"] = (1, c, 1, 1)
        shapes[f"{name}.inside_all"] = (c, 1, 1)
        shapes[f"{name}.lamb_g"] = shapes[f"{name}.lamb_l"] = (c,)
        mamba = Mamba(c).state_dict()  # tested in test_mamba.py
        shapes.update({f"{name}.g_layer.mamba.{k}": tuple(v.shape) for k, v in mamba.items()})

    width = SMALL["width"]
    conv("intro", width, 3, 3)
    conv("ending", 3, width, 3)
    for level in range(4):
        c = width * 2**level
        conv(f"downs.{level}", 2 * c, c, 2)
        for number in range(SMALL["encoder_blocks"][level]):
            block(f"encoders.{level}.{number}", c)
        c = width * 2 ** (3 - level)
        conv(f"ups.{level}.0", 4 * c, 2 * c, 1, bias=False)
        conv(f"Convs.{level}", c, 2 * c, 1)
        for number in range(SMALL["decoder_blocks"][level]):
            block(f"decoders.{level}.{number}", c)
    for number in range(SMALL["middle_blocks"]):
        block(f"middle_blks.{number}", 16 * width)
    for number, s in enumerate((8, 4, 2)):
        c = width * s
        conv(f"ConvsOut.{number}", 3, c, 3)
        conv(f"FAM{s}.merge", c, 2 * c, 1)
        conv(f"SFE{s}.main.0.main.0", c // 4, 3, 3)
        conv(f"SFE{s}.main.1.main.0", c // 2, c // 4, 1)
        conv(f"SFE{s}.main.2.main.0", c // 2, c // 2, 3)
        conv(f"SFE{s}.main.3.main.0", c, c // 2, 1)
        shapes[f"SFE{s}.main.4.weight"] = shapes[f"SFE{s}.main.4.bias"] = (c,)
    return shapes


def test_state_dict_has_the_official_names_and_shapes() -> None:
    state = ALGNet(**SMALL).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == official_shapes()


@pytest.mark.parametrize(
    ("variant", "parameters", "unused"),
    [
        ("32", 37_697_676, 4.43e6),
        ("32-deep", 54_642_252, 6.61e6),
        ("64", 146_641_164, 17.68e6),
        ("64-deep", 213_823_628, 26.42e6),
    ],
)
def test_parameters(variant: str, parameters: int, unused: float) -> None:
    net = on_meta(variant)
    assert count_parameters(net) == parameters
    dead = sum(p.numel() for name, p in net.named_parameters() if is_unused(name))
    assert dead == pytest.approx(unused, rel=1e-3)


@pytest.mark.parametrize(
    ("variant", "without_mamba", "with_its_layers"),
    [
        ("32", 17.536, 34.686),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("32-deep", 19.273, 39.045),
                ("64", 69.25, 133.75),
                ("64-deep", 75.95, 149.05),
            )
        ),
    ],
)
def test_macs_of_the_official_code(
    variant: str, without_mamba: float, with_its_layers: float
) -> None:
    """The official code computes all four outputs, and its scan is not counted."""
    net = on_meta(variant)
    width = SPEC.variants[variant]["width"]
    outputs = sum(27 * width * s * (256 // s) ** 2 for s in (2, 4, 8))
    plain = count_macs(net, 256, 256, without=("g_layer.mamba",)).pure
    assert (plain + outputs) / 1e9 == pytest.approx(without_mamba, rel=3 * MACS_PURE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, 256, 256, device="meta"))
    scan = counter.get_flop_counts()["Global"][SCAN] // 2
    assert scan == sum(
        len(mamba.D) * (256 // (len(mamba.D) // (2 * width))) ** 2 * (4 * 32 + 3)
        for mamba in net.modules()
        if isinstance(mamba, Mamba)
    )
    layers = count_macs(net, 256, 256).pure - scan
    assert (layers + outputs) / 1e9 == pytest.approx(with_its_layers, rel=3 * MACS_PURE)


def test_residual_scales_start_at_zero() -> None:
    """As in the official code: an untrained block is the identity."""
    block, x = ALGBlock(3).double(), rand(1, 3, 4, 5)
    assert torch.equal(block(x), x)


def instance_norm(x: Tensor, norm: InstanceNorm2d) -> Tensor:
    flat = x.flatten(2)
    centred = flat - flat.mean(dim=2, keepdim=True)
    y = centred / (centred.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()
    return (y * norm.weight.view(-1, 1) + norm.bias.view(-1, 1)).view(x.shape)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 3, 1, 7), (1, 2, 1, 1)])
def test_instance_norm(shape: tuple[int, ...]) -> None:
    norm, x = filled(InstanceNorm2d(shape[1])), 3 + 2 * rand(*shape, seed=1)
    torch.testing.assert_close(norm(x), instance_norm(x, norm), **OP_FLOAT64)


def test_instance_norm_computes_the_same_as_torchs() -> None:
    norm, x = filled(InstanceNorm2d(4)), 1e-3 * rand(2, 4, 5, 6)
    y = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)
    torch.testing.assert_close(norm(x), y, **OP_FLOAT64)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def shallow_formula(module: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(module, ShallowFeatures)
    for number, kernel in enumerate((3, 1, 3, 1)):
        conv = module.main[number].main[0]
        x = F.conv2d(x, conv.weight, conv.bias, padding=kernel // 2)
        x = gelu(x) if number < 3 else x
    return instance_norm(x, module.main[4])


def global_formula(layer: GlobalLayer, x: Tensor) -> Tensor:
    """Pixels in row-major order."""
    n, c, h, w = x.shape
    pixels = torch.stack([x[:, :, i, j] for i in range(h) for j in range(w)], dim=2)
    centred = pixels - pixels.mean(dim=1, keepdim=True)
    normal = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    normal = normal * layer.norm.weight.view(-1, 1) + layer.norm.bias.view(-1, 1)
    return mamba_formula(layer.mamba, normal).view(n, c, h, w)


def local_formula(layer: LocalLayer, x: Tensor) -> Tensor:
    attention = pointwise(x.mean(dim=(2, 3), keepdim=True), layer.conv1)
    return pointwise(x * attention, layer.conv2)


def block_formula(block: ALGBlock, x: Tensor) -> Tensor:
    s = gate(depthwise(pointwise(layer_norm(x, block.norm1), block.conv1), block.conv2))
    assert block.inside_all is not None and block.lamb_g is not None and block.lamb_l is not None
    weight = (1 + block.inside_all.flatten()) * block.lamb_g
    aggregated = torch.einsum("nchw,c->nchw", global_formula(block.g_layer, s), weight)
    aggregated += torch.einsum("nchw,c->nchw", local_formula(block.l_layer, s), block.lamb_l)
    y = x + aggregated
    ffn = pointwise(gate(pointwise(layer_norm(y, block.norm2), block.conv4)), block.conv5)
    return y + block.beta * ffn


def random_block(channels: int, **options: Any) -> ALGBlock:
    block = ALGBlock(channels, **options)
    randomize(block, SPEC, 3)
    return block.double().eval()


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 3, 1, 1), (1, 4, 2, 9)])
def test_block(shape: tuple[int, ...]) -> None:
    block, x = random_block(shape[1]), rand(*shape, seed=9)
    torch.testing.assert_close(block(x), block_formula(block, x), **OP_FLOAT64)


def test_local_pooling_changes_the_local_layer_only() -> None:
    """A window of three pixels: the mean of 3x3 pixels, with the border replicated."""
    block, x = random_block(4, window=3), rand(1, 4, 6, 7)
    layer = block.l_layer
    pooled = F.pad(F.avg_pool2d(x, 3, stride=1), (1, 1, 1, 1), mode="replicate")
    expected = pointwise(x * pointwise(pooled, layer.conv1), layer.conv2)
    torch.testing.assert_close(layer(x), expected, **OP_FLOAT64)
    torch.testing.assert_close(block.g_layer(x), global_formula(block.g_layer, x), **OP_FLOAT64)


def network_formula(net: ALGNet, x: Tensor) -> list[Tensor]:
    """The four outputs for a size that is a multiple of 16."""

    def stage(blocks: nn.Module, y: Tensor) -> Tensor:
        for block in blocks.children():
            assert isinstance(block, ALGBlock)
            y = block_formula(block, y)
        return y

    n, _, height, width = x.shape
    smaller = {s: x[..., 0:height:s, 0:width:s] for s in (2, 4, 8)}
    y, skips = F.conv2d(x, net.intro.weight, net.intro.bias, padding=1), []
    for level in range(4):
        skips.append(stage(net.encoders[level], y))
        y = F.conv2d(skips[-1], net.downs[level].weight, net.downs[level].bias, stride=2)
        if level < 3:
            s = 2 ** (level + 1)
            z = shallow_formula(net.get_submodule(f"SFE{s}"), smaller[s])
            y = pointwise(torch.cat([y, z], dim=1), net.get_submodule(f"FAM{s}").merge)
    y, outputs = stage(net.middle_blks, y), []
    for level in range(4):
        h, w = y.shape[2:]
        wide = torch.einsum("nchw,oc->nohw", y, net.ups[level][0].weight[:, :, 0, 0])
        wide = wide.view(n, -1, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, -1, 2 * h, 2 * w)
        y = pointwise(torch.cat([wide, skips[3 - level]], dim=1), net.Convs[level])
        y = stage(net.decoders[level], y)
        last = net.ending if level == 3 else net.ConvsOut[level]
        base = x if level == 3 else smaller[8 // 2**level]
        outputs.append(F.conv2d(y, last.weight, last.bias, padding=1) + base)
    return outputs


def test_network_is_its_stages() -> None:
    net, x = small(), image(2, 3, 32, 16)
    with torch.no_grad():
        expected = network_formula(net, x)
        restored, outputs = net(x), net.train()(x)
    assert isinstance(outputs, TrainingOutput)
    torch.testing.assert_close(list(outputs), expected, **NETWORK_FLOAT64)
    torch.testing.assert_close(restored, expected[-1], **NETWORK_FLOAT64)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 32), (17, 31)])
def test_any_size_and_a_batch_is_its_images(size: tuple[int, int]) -> None:
    net, x = small(), image(2, 3, *size)
    canvas = torch.zeros(2, 3, -(-size[0] // 16) * 16, -(-size[1] // 16) * 16, dtype=x.dtype)
    canvas[..., : size[0], : size[1]] = x
    with torch.no_grad():
        y = net(x)
        whole = net.forward_padded(canvas)[..., : size[0], : size[1]]
        alone = torch.cat([net(x[:1]), net(x[1:])])
    assert y.isfinite().all()
    torch.testing.assert_close(y, whole, **NETWORK_FLOAT64)
    torch.testing.assert_close(y, alone, **NETWORK_FLOAT64)


def test_training_outputs_match_every_second_pixel() -> None:
    """The ground truth of an output is image[..., ::s, ::s]."""
    net, x = small().train(), image(1, 3, 21, 34)
    with torch.no_grad():
        outputs = net(x)
    for s, y in zip((8, 4, 2, 1), outputs, strict=True):
        assert y.shape == x[..., ::s, ::s].shape


@pytest.mark.parametrize("training", [False, True])
def test_every_parameter_matters_but_the_unused(training: bool) -> None:
    """Each has a gradient; in inference, those that only training reads have none."""
    net, x = small().train(training), image(1, 3, 32, 16)
    outputs = net(x) if training else (net(x),)
    sum((y * rand(*y.shape, seed=2)).sum() for y in outputs).backward()
    for name, parameter in net.named_parameters():
        if is_unused(name) or (name.startswith("ConvsOut.") and not training):
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        effect = (parameter.grad * parameter).abs().max()
        if name.endswith(CANCELLED):
            torch.testing.assert_close(effect, torch.zeros_like(effect), **OP_FLOAT64)
        else:
            assert NOTICEABLE < effect < math.inf, name


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (small(seed).state_dict() for seed in (5, 5, 6))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert not torch.equal(value, other[name]), name


@pytest.mark.parametrize("seed", range(3))
def test_random_scans_have_finite_memory(seed: int) -> None:
    net = load_model("algnet", "tiny", f"random:{seed}").net
    for name, mamba in net.named_modules():
        if isinstance(mamba, Mamba):
            assert mamba.A_log is not None
            rates, steps = mamba.A_log.exp(), F.softplus(mamba.dt_proj.bias)
            assert 0.7 < rates.min() < rates.max() < 45, name
            assert (rates.diff(dim=1) > 0).float().mean() > 0.6, name
            assert 0.9e-3 < steps.min() < 0.01 < steps.max() < 0.11, name


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_keep_the_image_in_range(seed: int) -> None:
    net = load_model("algnet", "tiny", f"random:{seed}").net
    x = image(1, 3, 64, 80, seed=seed).float()
    with torch.no_grad():
        y = net(x)
        exact = net.double()(x.double())
    low, high = RANDOM_RESIDUAL_STD
    assert low < (y - x).std() < high
    assert (y - exact).abs().max() < 1e-5


def test_local_form_differs_beyond_its_window_only() -> None:
    net, local = small(), small(train_size=32)
    with torch.no_grad():
        inside, outside = image(1, 3, 48, 48), image(1, 3, 16, 64)
        torch.testing.assert_close(local(inside), net(inside), **NETWORK_FLOAT64)
        assert (local(outside) - net(outside)).abs().max() > NOTICEABLE
