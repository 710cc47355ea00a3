"""SAPHN (uniform) compared with the formulas of its paper, its keys, counts and random weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.export.reparam.merge_sibling_convs import merge_sibling_convs
from deblur_export.models import get
from deblur_export.models.blocks.saphn_attention import Attention, Siblings
from deblur_export.models.blocks.saphn_content import ContentAware, ResBlock
from deblur_export.models.complexity import count_macs, count_parameters
from deblur_export.models.random_weights import randomize
from deblur_export.models.saphn import SAPHN, TrainingOutput
from tests.models.test_nafnet import filled, rand
from tests.plugins.cases.deform_conv2d import tent_deform
from tests.tolerances import (
    MACS_PURE,
    NETWORK_FLOAT64,
    NOTICEABLE,
    OP_FLOAT64,
    RANDOM_RESIDUAL_STD,
)

SPEC = get("saphn")
Layer = Any  # submodules are accessed by name, as in a state dict


def network(seed: int = 0, **arguments: Any) -> SAPHN:
    net = SPEC.build(**(dict(SPEC.variants["tiny"]) | arguments))
    assert isinstance(net, SAPHN)
    randomize(net, SPEC, seed)
    return net.eval()


def image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def conv(x: Tensor, layer: Layer, stride: int = 1) -> Tensor:
    padding = layer.weight.shape[-1] // 2
    return F.conv2d(x, layer.weight, layer.bias, stride=stride, padding=padding)


def paper_summary(module: Layer, x: Tensor, values: Tensor) -> Tensor:
    """M_c * [(M_s * values) Q^T], entry by entry."""
    q = conv(x, module.context.q).flatten(2).softmax(dim=2)
    ms = torch.sigmoid(conv(x, module.context.ms))
    mc = torch.sigmoid(conv(x.mean(dim=(2, 3), keepdim=True), module.mc))
    return mc.flatten(2) * torch.einsum("ncp,ndp->ncd", (ms * values).flatten(2), q)


def paper_attention(module: Layer, x: Tensor, values: Tensor) -> Tensor:
    p = conv(x, module.maps.p).softmax(dim=1)
    return torch.einsum("ncd,ndhw->nchw", paper_summary(module, x, values), p)


def paper_content(module: Layer, x: Tensor) -> Tensor:
    offset = 4 * torch.tanh(conv(x, module.maps.offset))
    kernel = conv(x, module.maps.kernel)
    filtered = tent_deform(x, offset, module.weight, module.bias, kernel, 5)
    m = torch.sigmoid(conv(x, module.maps.fusion))
    return m * paper_attention(module, x, x) + (1 - m) * filtered


def paper_blocks(stack: Layer, x: Tensor) -> Tensor:
    for block in stack:
        x = x + paper_content(block.content, conv(x, block.conv).clamp(min=0))
    return x


def paper_stage(stage: Layer, x: Tensor, lower: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    encoder, decoder = stage.encoder, stage.decoder
    encoded: list[Tensor] = []
    x = conv(x, encoder.intro)
    for scale, stack in enumerate(encoder.blocks):
        x = conv(x, encoder.downs[scale - 1], stride=2) if scale else x
        x = paper_blocks(stack, x)
        if lower:
            x = x + paper_attention(encoder.cross[scale], x, lower[scale])
        encoded.append(x)
    decoded: list[Tensor] = []
    for scale in (3, 2, 1, 0):
        if scale < 3:
            up = decoder.ups[scale]
            x = F.conv_transpose2d(x, up.weight, up.bias, stride=2, padding=1)
        x = x + paper_attention(decoder.cross[scale], x, encoded[scale])
        x = paper_blocks(decoder.blocks[scale], x)
        decoded.insert(0, x)
    return conv(x, stage.ending), decoded


def cut(x: Tensor, rows: int, columns: int) -> list[Tensor]:
    """The patches of one image in row-major order."""
    return [patch for row in x.chunk(rows, dim=2) for patch in row.chunk(columns, dim=3)]


def joined(patches: Sequence[Tensor], columns: int) -> Tensor:
    rows = [
        torch.cat(list(patches[i : i + columns]), dim=3) for i in range(0, len(patches), columns)
    ]
    return torch.cat(rows, dim=2)


def paper_network(net: Layer, x: Tensor) -> list[Tensor]:
    """OP_1, OP_2, OP_3 of one image."""
    outputs, stage_input, features = [x], x, []
    for stage, (rows, columns) in zip(net.stages, ((2, 2), (2, 1), (1, 1)), strict=True):
        cuts = [cut(feature, rows, columns) for feature in features]
        results = [
            paper_stage(stage, patch, [patches[k] for patches in cuts])
            for k, patch in enumerate(cut(stage_input, rows, columns))
        ]
        residual = joined([r for r, _ in results], columns)
        features = [joined([f[s] for _, f in results], columns) for s in range(4)]
        outputs.append(outputs[-1] + residual)
        stage_input = x + residual
    return outputs[1:]


def test_attention_computes_the_papers_equations() -> None:
    module, x, values = filled(Attention(16)), rand(2, 16, 5, 7), rand(2, 16, 5, 7, seed=1)
    y = module(x, values)
    torch.testing.assert_close(y, paper_attention(module, x, values), **OP_FLOAT64)
    assert (y - module(x, x)).abs().max() > NOTICEABLE
    assert (y - module(values, values)).abs().max() > NOTICEABLE


def test_attention_supports_large_scores() -> None:
    module, x = filled(Attention(16)), rand(1, 16, 6, 6)
    assert module(1e4 * x, x).isfinite().all()


@pytest.mark.parametrize(("n", "h", "w"), [(2, 6, 5), (1, 1, 1)])
def test_block_computes_the_papers_equations(n: int, h: int, w: int) -> None:
    block, x = filled(ResBlock(8)), 0.1 * rand(n, 8, h, w)
    torch.testing.assert_close(block(x), paper_blocks([block], x), **OP_FLOAT64)


def test_offsets_are_bounded() -> None:
    """However large, the horizontal offsets move the five columns of taps by four pixels."""
    module, x = filled(ContentAware(8)), rand(1, 8, 1, 15).requires_grad_()
    maps: Layer = module.maps
    maps.fusion.bias.data.fill_(-1e6)  # PDF only
    maps.fusion.weight.data.zero_()
    maps.kernel.weight.data.zero_()
    maps.offset.weight.data.zero_()
    maps.offset.bias.data = torch.tensor([0.0, 1e6], dtype=torch.float64).repeat(25)
    (gradient,) = torch.autograd.grad(module(x)[0, :, 0, 7].sum(), x)
    touched = gradient.abs().amax(dim=(0, 1, 2)).nonzero().flatten().tolist()
    assert touched == [9, 10, 11, 12, 13]


def test_network_computes_the_papers_equations() -> None:
    net = network(widths=[8, 16, 16, 24], encoder_blocks=2, decoder_blocks=1).double()
    x = image(1, 3, 16, 32)
    with torch.no_grad():
        expected = paper_network(net, x)
        output = net.train()(x)
    assert isinstance(output, TrainingOutput)
    assert output.policy is None
    for restored, exact in zip(output.outputs, expected, strict=True):
        torch.testing.assert_close(restored, exact, **NETWORK_FLOAT64)
        assert (restored - x).abs().max() > 100 * NOTICEABLE
    assert output.restored is output.outputs[-1]


PATTERNS = """
stages.K.encoder.intro stages.K.encoder.downs.I stages.K.decoder.ups.I stages.K.ending
stages.K.encoder.blocks.I.I.conv stages.K.encoder.blocks.I.I.content
stages.K.encoder.blocks.I.I.content.context.q stages.K.encoder.blocks.I.I.content.context.ms
stages.K.encoder.blocks.I.I.content.mc stages.K.encoder.blocks.I.I.content.maps.p
stages.K.encoder.blocks.I.I.content.maps.offset stages.K.encoder.blocks.I.I.content.maps.kernel
stages.K.encoder.blocks.I.I.content.maps.fusion
stages.K.decoder.blocks.I.I.conv stages.K.decoder.blocks.I.I.content
stages.K.decoder.blocks.I.I.content.context.q stages.K.decoder.blocks.I.I.content.context.ms
stages.K.decoder.blocks.I.I.content.mc stages.K.decoder.blocks.I.I.content.maps.p
stages.K.decoder.blocks.I.I.content.maps.offset stages.K.decoder.blocks.I.I.content.maps.kernel
stages.K.decoder.blocks.I.I.content.maps.fusion
stages.K.encoder.cross.I.context.q stages.K.encoder.cross.I.context.ms
stages.K.encoder.cross.I.mc stages.K.encoder.cross.I.maps.p
stages.K.decoder.cross.I.context.q stages.K.decoder.cross.I.context.ms
stages.K.decoder.cross.I.mc stages.K.decoder.cross.I.maps.p
"""


def patterns(keys: Sequence[str]) -> set[str]:
    layers = {re.sub(r"\.(weight|bias)$", "", key) for key in keys}
    return {re.sub(r"\.\d+", ".I", re.sub(r"^stages\.\d", "stages.K", key)) for key in layers}


def test_keys() -> None:
    with torch.device("meta"):
        state = SPEC.build().state_dict()
    assert patterns(list(state)) == set(PATTERNS.split())
    crossed = {key.split(".")[1] for key in state if ".encoder.cross." in key}
    assert crossed == {"1", "2"}, "there is nothing below the first stage"
    content = "stages.2.decoder.blocks.3.1.content"
    shapes = {
        f"{content}.weight": (128, 128, 5, 5),
        f"{content}.context.q.weight": (16, 128, 3, 3),
        f"{content}.maps.offset.weight": (50, 128, 3, 3),
        f"{content}.maps.kernel.weight": (25, 128, 3, 3),
        f"{content}.mc.weight": (128, 128, 1, 1),
        "stages.1.decoder.ups.2.weight": (128, 128, 4, 4),
        "stages.1.decoder.ups.0.weight": (64, 32, 4, 4),
        "stages.0.encoder.downs.1.weight": (128, 64, 3, 3),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize(
    ("variant", "parameters", "gmacs", "published"),
    [("uniform", 22_518_053, 136.6693, 136), ("nonuniform", 23_020_519, 142.8140, 140)],
)
def test_counts(variant: str, parameters: int, gmacs: float, published: float) -> None:
    with torch.device("meta"):
        net = SPEC.build(**SPEC.variants[variant])
    assert count_parameters(net) == parameters
    pure = count_macs(net, 256, 256).pure
    assert pure == pytest.approx(1e9 * gmacs, rel=MACS_PURE)
    assert pure == pytest.approx(1e9 * published, rel=0.021)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16), (33, 17), (15, 40)])
@pytest.mark.parametrize("variant", ["tiny", "tiny-nonuniform"])
def test_any_size_and_a_batch_is_its_images(variant: str, size: tuple[int, int]) -> None:
    net, x = network(**SPEC.variants[variant]).double(), image(2, 3, *size)
    with torch.no_grad():
        y = net(x)
        alone = torch.cat([net(x[:1]), net(x[1:])])
    assert y.shape == x.shape
    assert y.isfinite().all()
    torch.testing.assert_close(y, alone, **NETWORK_FLOAT64)


def test_padding_is_by_reflection() -> None:
    net, x = network().double(), image(1, 3, 13, 16)
    mirrored = torch.cat([x, x[:, :, 9:12].flip(2)], dim=2)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(mirrored)[:, :, :13], **NETWORK_FLOAT64)


@pytest.mark.parametrize("training", [False, True])
def test_every_parameter_changes_the_output(training: bool) -> None:
    net, x = network().double().train(training), image(1, 3, 16, 32)
    output = net(x)
    restored = output.restored if isinstance(output, TrainingOutput) else output
    (restored * rand(*restored.shape)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        effect = (parameter.grad * parameter).abs().max()
        if name.endswith("context.q.bias"):
            assert effect < 1e-15, "a constant cancels in the softmax over the pixels"
        else:
            assert effect > NOTICEABLE, name


@pytest.mark.parametrize("variant", ["tiny", "tiny-nonuniform"])
@pytest.mark.parametrize("seed", range(3))
def test_random_weights_exercise_every_branch(variant: str, seed: int) -> None:
    net, x = network(seed, **SPEC.variants[variant]), image(1, 3, 48, 64, seed=seed).float()
    seen: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, Siblings):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: list(o)}))
    for name, parameter in net.named_parameters():
        assert torch.count_nonzero(parameter) == parameter.numel(), name
    with torch.no_grad():
        y = net(x)
        exact = net.double()(x.double())
    low, high = RANDOM_RESIDUAL_STD
    assert low < (y - x).std() < high
    assert (y - exact).abs().max() < 3e-5
    content = [maps for name, maps in seen.items() if name.endswith("content.maps")]
    assert len(content) >= 6
    for p, offset, kernel, fusion in content:
        assert p.std() > 0.02
        assert 0.3 < (4 * offset.tanh()).abs().mean() < 3.5
        assert kernel.std() > 0.05
        assert fusion.sigmoid().min() > 0.01
        assert fusion.sigmoid().max() < 0.99


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = network(5).state_dict()
    torch.manual_seed(2)
    again, other = network(5).state_dict(), network(6).state_dict()
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert not torch.equal(value, other[name]), name


@pytest.mark.parametrize("variant", ["tiny", "tiny-nonuniform"])
def test_merged_convolutions_compute_the_same(variant: str) -> None:
    net, x = network(**SPEC.variants[variant]).double(), image(1, 3, 16, 24)
    with torch.no_grad():
        before = net(x)
        groups = [name for name, m in net.named_modules() if isinstance(m, Siblings)]
        changes = merge_sibling_convs(net, (x,))
        torch.testing.assert_close(net(x), before, **NETWORK_FLOAT64)
    assert changes.changed == groups
    assert not any(".maps.p." in key or ".context.q." in key for key in net.state_dict())
    assert not merge_sibling_convs(net, (x,)).changed


@pytest.mark.parametrize("widths", [[16], [16] * 5, [16, 12], [16, 0]])
def test_widths_that_do_not_fit_are_refused(widths: list[int]) -> None:
    with pytest.raises(ValueError, match="widths"):
        SAPHN(widths=widths)


def test_image_with_another_number_of_channels_is_refused() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        network()(image(1, 1, 16, 16).float())


def test_variants_are_as_published_first() -> None:
    assert SPEC.default_variant == "uniform"
    assert isinstance(SPEC.build(**SPEC.variants["tiny"]), nn.Module)
