"""AIBNet: names, counts, the composition of its parts, training, and random weights."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.models import get
from deblur_export.models.aibnet import AIBNet, TrainingOutput
from deblur_export.models.blocks.aibnet_attention import ChannelAttention
from deblur_export.models.blocks.aibnet_decoupler import Decoupler
from deblur_export.models.blocks.aibnet_hfs import HFSBlock
from deblur_export.models.blocks.naf import GlobalAveragePool
from deblur_export.models.complexity import count_macs, count_parameters
from deblur_export.models.random_weights import randomize
from tests.tolerances import (
    MACS_PURE,
    NETWORK_FLOAT64,
    NOTICEABLE,
    RANDOM_RESIDUAL_STD,
)

SPEC, UFPNET = get("aibnet"), get("ufpnet")
SMALL = {
    "width": 8,
    "encoder_blocks": [1, 1, 1, 2],
    "middle_blocks": 1,
    "kernel_size": 3,
    "prior_width": 4,
    "sub_decoders": 3,
    "blocks": 2,
    "filter_size": 3,
}
# Published: 41.1 M parameters and 114 G for each sub-decoder, printed with three digits.
PUBLISHED = 5e-3


@cache
def template(seed: int) -> AIBNet:
    net = AIBNet(**SMALL)
    randomize(net, SPEC, seed)
    return net.double().eval()


def small(seed: int = 0) -> AIBNet:
    return copy.deepcopy(template(seed))


def tiny(seed: int = 0) -> AIBNet:
    net = SPEC.build(**SPEC.variants["tiny"])
    assert isinstance(net, AIBNet)
    randomize(net, SPEC, seed)
    return net.eval()


def on_meta(name: str, variant: str, **more: object) -> nn.Module:
    with torch.device("meta"):
        return get(name).build(**get(name).variants[variant], **more)


def image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def sub_decoder_shapes(w: int, blocks: int, k: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"ending.weight": (3, w, 3, 3), "ending.bias": (3,)}

    def conv(name: str, out: int, each: int, kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, each, kernel, kernel), (out,)

    for number in range(4):
        c = w * 2 ** (3 - number)
        shapes[f"ups.{number}.0.weight"] = (4 * c, 2 * c, 1, 1)
        for j in range(blocks):
            block = f"scales.{number}.{j}"
            conv(f"{block}.conv1", 2 * c, c, 1)
            conv(f"{block}.conv2", 2 * c, 1, 3)
            conv(f"{block}.sca.1", c, c, 1)
            conv(f"{block}.conv3", c, c, 1)
            conv(f"{block}.conv4", 2 * c, c, 1)
            conv(f"{block}.conv4_dw", 2 * c, 1, 3)
            conv(f"{block}.conv5", c, c, 1)
            conv(f"{block}.sfem.qkv", 5 * c, c, 1)
            conv(f"{block}.sfem.dw", 5 * c, 1, 3)
            conv(f"{block}.sfem.out", c, c, 1)
            for leaf in ("beta", "gamma", "W"):
                shapes[f"{block}.{leaf}"] = (1, c, 1, 1)
            for leaf in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
                shapes[f"{block}.{leaf}"] = (c,)
            for leaf in ("a_q1", "a_k1", "a_q2", "a_k2"):
                shapes[f"{block}.sfem.{leaf}"] = (c,)
            shapes[f"{block}.sfem.b"] = (1,)
        high = f"scales.{number}.{blocks}"
        conv(f"{high}.qkv", 3 * c, c, 1)
        conv(f"{high}.dw", 3 * c, 1, 3)
        shapes[f"{high}.b"], shapes[f"{high}.lambda_"] = (1,), (4,)
        shapes[f"{high}.decoupler.conv.weight"] = (8 * k * k, c, 1, 1)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{high}.decoupler.bn.{leaf}"] = (8 * k * k,)
        shapes[f"{high}.decoupler.bn.num_batches_tracked"] = ()
    return shapes


def test_names_and_shapes() -> None:
    expected = {
        f"sub_decoders.{t}.{key}": shape
        for t in range(3)
        for key, shape in sub_decoder_shapes(8, 2, 3).items()
    }
    state = {k: tuple(v.shape) for k, v in template(0).state_dict().items()}
    assert {k: v for k, v in state.items() if not k.startswith("encoder.")} == expected


def test_encoder_has_the_names_of_ufpnet() -> None:
    """An official UFPNet checkpoint therefore contains the encoder and the parts that it omits."""
    unused = ("decoders.", "ups.", "ending.", "kernel_down.2.", "kernel_down.3.")
    official = on_meta("ufpnet", "64").state_dict()
    encoder = on_meta("aibnet", "s").get_submodule("encoder").state_dict()
    assert {k: v.shape for k, v in encoder.items()} == {
        k: v.shape for k, v in official.items() if not k.startswith(unused)
    }


@pytest.mark.parametrize(("variant", "count"), [("s", 1), ("b", 2), ("l", 4)])
def test_parameters(variant: str, count: int) -> None:
    net = on_meta("aibnet", variant)
    assert count_parameters(net.get_submodule("encoder")) == 74_044_562
    decoders = count_parameters(net, without=("encoder",))
    assert decoders == 41_140_983 * count
    assert decoders == pytest.approx(41.1e6 * count, rel=PUBLISHED)


@pytest.mark.parametrize(
    ("variant", "count"),
    [("s", 1), *(pytest.param(*more, marks=pytest.mark.slow) for more in (("b", 2), ("l", 4)))],
)
def test_macs(variant: str, count: int) -> None:
    """The paper counts convolutions and pooling only; earlier sub-decoders compute no image."""
    net = on_meta("aibnet", variant, encoder_train_size=None)
    macs = count_macs(net, 256, 256, without=("encoder",))
    unused = (count - 1) * 3 * 64 * 9 * 256**2
    assert macs.convolutions + unused == pytest.approx(113.873e9 * count, rel=MACS_PURE)
    assert macs.pure + unused == pytest.approx(141.987e9 * count, rel=MACS_PURE)
    assert macs.convolutions == pytest.approx(114e9 * count, rel=PUBLISHED)


def test_hyperparameters() -> None:
    assert SPEC.hyperparameters(template(0).state_dict()) == SMALL
    assert SPEC.default_variant == "s"


def test_which_pooling_becomes_local() -> None:
    """TLC applies to the simplified channel attention; the encoder is local by default."""

    def windows(**more: int | None) -> dict[str, set[int | None]]:
        with torch.device("meta"):
            net = AIBNet(**SMALL, **more)
        found: dict[str, set[int | None]] = {"encoder": set(), "sca": set(), "decoupler": set()}
        for name, module in net.named_modules():
            if isinstance(module, GlobalAveragePool):
                kind = next(kind for kind in found if f"{kind}." in name)
                found[kind].add(module.window)
        return found

    scales = {384, 192, 96, 48}
    plain = windows()
    assert plain == {"encoder": scales | {24}, "sca": {None}, "decoupler": {None}}
    assert windows(train_size=256) == plain | {"sca": scales}
    assert windows(encoder_train_size=None)["encoder"] == {None}


def shuffle_up(x: Tensor, conv: nn.Conv2d) -> Tensor:
    n, _, h, w = x.shape
    wide = torch.einsum("nchw,oc->nohw", x, conv.weight[:, :, 0, 0])
    wide = wide.view(n, -1, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
    return wide.reshape(n, -1, 2 * h, 2 * w)


def sub_decoder_images(net: AIBNet, x: Tensor) -> list[Tensor]:
    """I_1, I_2, ... for an image that needs no padding."""
    *skips, bottom = net.encoder(x)
    features, images = skips[::-1], []
    for decoder in net.sub_decoders:
        y, new = bottom, []
        for up, scale, skip in zip(decoder.ups, decoder.scales, features, strict=True):
            y = shuffle_up(y, up[0]) + skip
            for block in scale:
                y = block(y)
            new.append(y)
        features = new
        images.append(F.conv2d(y, decoder.ending.weight, decoder.ending.bias, padding=1) + x)
    return images


def test_sub_decoders_are_a_chain() -> None:
    net, x = small(), image(2, 3, 32, 16)
    with torch.no_grad():
        images = sub_decoder_images(net, x)
        torch.testing.assert_close(net(x), images[-1], **NETWORK_FLOAT64)
    assert (images[0] - images[1]).abs().max() > NOTICEABLE
    assert (images[1] - images[2]).abs().max() > NOTICEABLE


def test_blocks_end_in_one_high_frequency_block() -> None:
    for decoder in small().sub_decoders:
        for scale in decoder.scales:
            assert [isinstance(block, HFSBlock) for block in scale] == [False, False, True]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 32), (17, 31)])
def test_any_size_is_padded_by_reflection_and_cropped(size: tuple[int, int]) -> None:
    net, x = small(), image(2, 3, *size)
    h, w = size
    widths = ((0, 0), (0, 0), (0, -h % 16), (0, -w % 16))
    padded = torch.from_numpy(np.pad(x.numpy(), widths, "reflect"))
    with torch.no_grad():
        y = net(x)
        torch.testing.assert_close(y, net.forward_padded(padded)[..., :h, :w], **NETWORK_FLOAT64)
        alone = torch.cat([net(x[:1]), net(x[1:])])
    assert y.shape == x.shape
    assert y.isfinite().all()
    torch.testing.assert_close(y, alone, **NETWORK_FLOAT64)


def use_running_statistics(net: AIBNet) -> AIBNet:
    for module in net.modules():
        if isinstance(module, Decoupler):
            module.eval()
    return net


@pytest.mark.parametrize("size", [(32, 16), (19, 33)])
def test_training_forward_returns_the_image_of_every_sub_decoder(size: tuple[int, int]) -> None:
    net, x = small(), image(2, 3, *size)
    h, w = size
    widths = ((0, 0), (0, 0), (0, -h % 16), (0, -w % 16))
    with torch.no_grad():
        expected = sub_decoder_images(net, torch.from_numpy(np.pad(x.numpy(), widths, "reflect")))
        output = use_running_statistics(net.train())(x)
    assert isinstance(output, TrainingOutput)
    assert output.restored is output.images[-1]
    for restored, padded in zip(output.images, expected, strict=True):
        torch.testing.assert_close(restored, padded[..., :h, :w], **NETWORK_FLOAT64)


def test_training_reaches_every_sub_decoder_and_no_encoder() -> None:
    net = small().train()
    encoder = copy.deepcopy(net.encoder.state_dict())
    net(image(2, 3, 32, 16)).restored.square().mean().backward()
    last = "sub_decoders.2."
    for name, parameter in net.named_parameters():
        reached = not name.startswith("encoder.") and (".ending." not in name or last in name)
        assert (parameter.grad is not None) == reached, name
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
    for name, value in net.encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name


def test_encoder_stays_frozen_in_training_mode() -> None:
    net, x = small(), image(2, 3, 32, 16)
    expected = net.encode(x)[0]
    net.train()
    assert not any(module.training for module in net.encoder.modules())
    assert net.sub_decoders.training
    assert not any(parameter.requires_grad for parameter in net.encoder.parameters())
    bottom, skips = net.encode(x)
    assert torch.equal(bottom, expected), "no noise is drawn"
    assert not any(tensor.requires_grad for tensor in (bottom, *skips))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_sub_decoder_is_trained_and_the_earlier_are_frozen(index: int) -> None:
    net, x = small().train(), image(2, 3, 32, 16)
    net.train_only(index)
    before = copy.deepcopy(net.state_dict())
    output = net(x)
    assert len(output.images) == index + 1
    assert [y.requires_grad for y in output.images] == [False] * index + [True]
    output.restored.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == name.startswith(f"sub_decoders.{index}."), name
    moved = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert moved, "its batch norms follow the batch"
    assert all(k.startswith(f"sub_decoders.{index}.") and ".bn." in k for k in moved)


def test_frozen_sub_decoders_compute_as_in_inference() -> None:
    net, x = small(), image(2, 3, 32, 16)
    with torch.no_grad():
        expected = sub_decoder_images(net, x)
    net.train_only(2)
    images = net.train()(x).images
    for trained, inferred in zip(images[:2], expected[:2], strict=True):
        torch.testing.assert_close(trained, inferred, **NETWORK_FLOAT64)


def test_train_only_survives_changes_of_mode_and_can_be_undone() -> None:
    net, x = small(), image(2, 3, 16, 16)
    net.train_only(1)
    with torch.no_grad():
        torch.testing.assert_close(net(x), small()(x), **NETWORK_FLOAT64)
        assert len(net.train().eval().train()(x).images) == 2
        net.train_only(None)
        assert len(net(x).images) == 3
    assert all(decoder.training for decoder in net.sub_decoders)
    assert all(parameter.requires_grad for parameter in net.sub_decoders.parameters())


def test_bad_arguments_are_refused() -> None:
    for index in (-1, 3):
        with pytest.raises(ValueError, match="no sub-decoder"):
            small().train_only(index)
    with pytest.raises(ValueError, match="at least two images"):
        small().train()(image(1, 3, 16, 16))
    with pytest.raises(ValueError, match="multiple of 8 channels"):
        AIBNet(**{**SMALL, "width": 12})


def test_every_parameter_of_a_sub_decoder_matters() -> None:
    net = AIBNet(**{**SMALL, "blocks": 1, "sub_decoders": 1})
    randomize(net, SPEC, 0)
    decoder = net.double().eval().sub_decoders[0]
    with torch.no_grad():
        bottom, features = net.encode(image(1, 3, 32, 32))
        before = decoder.ending(decoder(bottom, features)[-1])
        for name, parameter in decoder.named_parameters():
            kept = parameter.clone()
            parameter.mul_(1.5)
            change = decoder.ending(decoder(bottom, features)[-1]) - before
            assert change.abs().max() > NOTICEABLE, name
            parameter.copy_(kept)


def test_the_encoder_matters() -> None:
    net, x = small(), image(1, 3, 32, 16)
    with torch.no_grad():
        before = net(x)
        for name in ("intro.weight", "encoders.2.0.kernel_atttion.conv_1.0.weight", "downs.3.bias"):
            changed = small()
            changed.encoder.get_parameter(name).mul_(1.5)
            assert (changed(x) - before).abs().max() > NOTICEABLE, name


def test_normalized_attention_is_another_network() -> None:
    net, x = small(), image(1, 3, 32, 16)
    other = AIBNet(**SMALL, normalize_qk=True).double().eval()
    other.load_state_dict(net.state_dict())
    attentions = [m for m in other.modules() if isinstance(m, ChannelAttention)]
    assert len(attentions) == 3 * 4 * 3
    assert all(attention.normalize_qk for attention in attentions)
    with torch.no_grad():
        assert (net(x) - other(x)).abs().max() > NOTICEABLE


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = tiny(5).state_dict()
    torch.manual_seed(2)
    again, other = tiny(5).state_dict(), tiny(6).state_dict()
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
    assert not torch.equal(first["encoder.intro.weight"], other["encoder.intro.weight"])


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_exercise_every_branch(seed: int) -> None:
    net, x = tiny(seed), image(1, 3, 96, 128, seed=seed).float()
    for name, parameter in net.named_parameters():
        assert torch.count_nonzero(parameter) == parameter.numel(), name
    spreads: list[Tensor] = []
    largest: list[Tensor] = []

    def watch(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(block, ChannelAttention)
        high = isinstance(block, HFSBlock)
        query, key, *_ = block.parts(block.decoupler(inputs[0]) if high else inputs[0])
        logits = block.logits(query, key)
        spreads.append(logits.std(dim=-1).mean())
        largest.append((logits.softmax(dim=-1).amax(dim=-1) > 0.99).float().mean())

    for module in net.modules():
        if isinstance(module, ChannelAttention):
            module.register_forward_hook(watch)
    with torch.no_grad():
        residual = net(x) - x
    assert len(spreads) == 2 * 4 * 2
    assert min(spreads) > 5e-3, "a flat attention"
    assert max(largest) < 0.3, "a saturated attention"
    low, high = RANDOM_RESIDUAL_STD
    assert low < residual.std() < high
