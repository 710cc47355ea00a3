"""M2AENet compared with the formulas of its paper, its training path and its random weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from deblur_export.models import get
from deblur_export.models.blocks.padding import pad_to_multiple
from deblur_export.models.m2aenet import (
    M2AENet,
    M2ASBlock,
    MaskPredictor,
    MaskThreshold,
    MotionAnalyzer,
    MotionDeformConv2d,
    TrainingOutput,
)
from deblur_export.models.random_weights import randomize
from tests.models.test_nafnet import (
    attention,
    depthwise,
    filled,
    gate,
    layer_norm,
    pointwise,
    rand,
)
from tests.plugins.cases.motion_deform_conv import tent_deform
from tests.plugins.harness import blob_mask
from tests.tolerances import (
    NETWORK_FLOAT64,
    NOTICEABLE,
    OP_FLOAT64,
    RANDOM_RESIDUAL_STD,
)

SPEC = get("m2aenet")
COVERAGES = [0.0, 0.05, 0.5, 1.0]


def tiny(seed: int = 0, **arguments: object) -> M2AENet:
    net = SPEC.build(**{**SPEC.variants["tiny"], **arguments})
    assert isinstance(net, M2AENet)
    randomize(net, SPEC, seed)
    return net.eval()


def image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def stage_size(height: int, width: int) -> tuple[int, int]:
    """The size of the mask, an eighth of the padded image."""
    return -(-height // 16) * 2, -(-width // 16) * 2


def stage_input(net: M2AENet, x: Tensor) -> Tensor:
    features, skips = net.encode_shallow(pad_to_multiple(x, 16))
    assert len(skips) == 3
    return features


def paper_block(block: M2ASBlock, x: Tensor, mask: Tensor, offset: Tensor) -> Tensor:
    """Eq. 5 and 6, with NAFNet's residual scales, computed at every pixel."""
    f1 = layer_norm(x, block.norm1)
    f2 = mask * depthwise(pointwise(f1, block.conv1), block.conv2)
    f2 = f2 + (1 - mask) * torch.cat([f1, f1], dim=1)
    y = x + block.beta * pointwise(attention(gate(f2), block), block.conv3)
    f4 = pointwise(layer_norm(y, block.norm2), block.conv4)
    deform = block.deform
    f5 = gate(tent_deform(f4, offset, deform.weight, deform.bias, len(deform.bias)))
    return y + block.gamma * pointwise(f5, block.conv5)


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize(("n", "h", "w"), [(2, 9, 13), (1, 2, 4)])
def test_block_computes_the_papers_equations(coverage: float, n: int, h: int, w: int) -> None:
    block = filled(M2ASBlock(5)).eval()
    x, mask, offset = rand(n, 5, h, w), blob_mask(n, h, w, coverage), 2 * rand(n, 18, h, w, seed=3)
    with torch.no_grad():
        y = block(x, mask, offset)
        torch.testing.assert_close(y, paper_block(block, x, mask, offset), **OP_FLOAT64)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_network_with_a_given_mask_computes_the_papers_equations(coverage: float) -> None:
    net, x = tiny().double(), image(1, 3, 40, 70)
    mask = blob_mask(1, *stage_size(40, 70), coverage)
    with torch.no_grad():
        y = net(x, mask)
        features, skips = net.encode_shallow(pad_to_multiple(x, 16))
        offset = net.motion_analyzer(features)
        for block in net.encoders[3]:
            assert isinstance(block, M2ASBlock)
            features = paper_block(block, features, mask, offset)
        bottom = net.middle_blks(net.downs[3](features))
        expected = net.decode(bottom, [*skips, features], pad_to_multiple(x, 16))[..., :40, :70]
    torch.testing.assert_close(y, expected, **NETWORK_FLOAT64)


def test_the_mask_decides_what_is_computed() -> None:
    net, x = tiny().double(), image(1, 3, 48, 64)
    size = stage_size(48, 64)
    with torch.no_grad():
        features = stage_input(net, x)
        predicted = net.mask(net.mask_predictor(features))
        assert torch.equal(net(x), net(x, predicted))
        nothing, everything = net(x, torch.zeros(1, 1, *size)), net(x, torch.ones(1, 1, *size))
    assert (nothing - everything).abs().max() > NOTICEABLE
    assert (net(x) - nothing).abs().max() > NOTICEABLE
    assert (net(x) - everything).abs().max() > NOTICEABLE


def test_mask_predictor_formula() -> None:
    predictor, x = filled(MaskPredictor(8)), rand(2, 8, 3, 5)
    first, _, norm, second = predictor.embed
    layers = [layer for layer in predictor.head if isinstance(layer, nn.Linear)]

    def gelu(z: Tensor) -> Tensor:
        return z * (1 + torch.erf(z / math.sqrt(2))) / 2

    t = gelu(x.flatten(2).transpose(1, 2) @ first.weight.T + first.bias)
    t = t - t.mean(dim=-1, keepdim=True)
    t = t / (t.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
    t = t @ second.weight.T + second.bias
    t[..., 4:] = t[..., 4:].mean(dim=1, keepdim=True)
    for number, layer in enumerate(layers):
        t = t @ layer.weight.T + layer.bias
        t = gelu(t) if number < 2 else t
    torch.testing.assert_close(predictor(x).flatten(2), t.transpose(1, 2), **OP_FLOAT64)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_margin_gives_the_same_mask_as_the_softmax(threshold: float) -> None:
    logits, rule = 2 * rand(2, 2, 40, 30), MaskThreshold(threshold)
    expected = torch.softmax(logits, dim=1)[:, :1] > threshold
    assert 0.1 < expected.double().mean() < 0.9
    mask = rule(logits)
    assert mask.dtype == logits.dtype
    assert torch.equal(mask, expected.double())
    assert torch.equal(rule(rule.margin(logits)), mask), "an already folded margin"


def test_threshold_reaches_the_network() -> None:
    net, x = tiny(), image(1, 3, 64, 64).float()
    fractions = []
    for threshold in (0.2, 0.5, 0.8):
        other = M2AENet(**SPEC.variants["tiny"], threshold=threshold).eval()
        other.load_state_dict(net.state_dict())
        with torch.no_grad():
            fractions.append(other.mask(other.mask_predictor(stage_input(other, x))).mean().item())
    assert fractions[0] > fractions[1] > fractions[2]


def test_trajectory() -> None:
    """The parabola through o(t0), 0 and o(t8), with (x, y) converted to (dy, dx)."""
    analyzer, flow = MotionAnalyzer(4), rand(2, 4, 3, 5)
    offset = analyzer.interpolate(flow).view(2, 9, 2, 3, 5)
    first, last = flow[:, [1, 0]], flow[:, [3, 2]]
    torch.testing.assert_close(offset[:, 0], first, **OP_FLOAT64)
    assert torch.count_nonzero(offset[:, 4]) == 0
    torch.testing.assert_close(offset[:, 8], last, **OP_FLOAT64)
    bends = offset.diff(n=2, dim=1)
    torch.testing.assert_close(
        bends, ((first + last) / 16).unsqueeze(1).expand_as(bends), **OP_FLOAT64
    )


def test_analyzer_interpolates_its_flow() -> None:
    analyzer, x = filled(MotionAnalyzer(6)), rand(1, 6, 4, 5)
    torch.testing.assert_close(analyzer(x), analyzer.interpolate(analyzer.flow(x)), **OP_FLOAT64)
    assert analyzer(x).shape == (1, 18, 4, 5)


@pytest.mark.parametrize("tap", [0, 8])
def test_a_tap_samples_where_the_flow_points(tap: int) -> None:
    """A flow of two pixels to the right and one up at the moment of the tap."""
    conv = MotionDeformConv2d(1).double()
    conv.weight.data = torch.eye(9, dtype=torch.float64)[tap].view(1, 1, 3, 3)
    flow = torch.zeros(1, 4, 7, 9, dtype=torch.float64)
    flow[:, 0 if tap == 0 else 2], flow[:, 1 if tap == 0 else 3] = 2, -1
    x = rand(1, 1, 7, 9)
    y = conv(x, MotionAnalyzer(1).interpolate(flow))
    dy, dx = (-1 - 1, -1 + 2) if tap == 0 else (1 - 1, 1 + 2)
    expected = x[..., 3 + dy, 4 + dx]
    torch.testing.assert_close(y[..., 3, 4], expected, **OP_FLOAT64)


def hard_decision(logits: Tensor, tau: float, hard: bool, dim: int) -> Tensor:
    """Replaces the Gumbel sample: one-hot of the larger logit, straight-through."""
    assert (tau, hard, dim) == (1.0, True, 1)
    soft = logits.softmax(dim)
    one_hot = torch.zeros_like(soft).scatter_(dim, soft.argmax(dim, keepdim=True), 1.0)
    return one_hot + soft - soft.detach()


def test_a_draw_from_logits_is_one_from_the_probabilities_of_equation_2() -> None:
    """Gumbel-softmax adds its noise to log p, and softmax ignores what all logits share."""
    logits = rand(2, 2, 9, 11)
    draws, noisy = [], []
    for scores in (logits, logits.softmax(1).log()):
        torch.manual_seed(0)
        draws.append(torch.nn.functional.gumbel_softmax(scores, tau=1.0, hard=True, dim=1))
        torch.manual_seed(0)
        noisy.append(torch.nn.functional.gumbel_softmax(scores, tau=1.0, dim=1))
    assert torch.equal(*draws)
    torch.testing.assert_close(*noisy, **OP_FLOAT64)
    torch.manual_seed(1)
    many = torch.nn.functional.gumbel_softmax(logits.expand(2000, 2, 2, 9, 11), hard=True, dim=2)
    torch.testing.assert_close(many.mean(0), logits.softmax(1), atol=0.06, rtol=0)


@pytest.mark.parametrize("size", [(48, 64), (35, 21)])
def test_training_forward_equals_inference_under_the_same_mask(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr("torch.nn.functional.gumbel_softmax", hard_decision)
    net, x = tiny().double(), image(2, 3, *size)
    h, w = stage_size(*size)
    with torch.no_grad():
        expected = net(x)
        features = stage_input(net, x)
        output = net.train()(x)
    assert isinstance(output, TrainingOutput)
    torch.testing.assert_close(output.restored, expected, **NETWORK_FLOAT64)
    assert output.logits.shape == (2, 2, h, w)
    assert output.flow.shape == (2, 4, h, w)
    torch.testing.assert_close(output.mask, net.mask(output.logits), **OP_FLOAT64)
    torch.testing.assert_close(
        net.motion_analyzer.interpolate(output.flow),
        net.motion_analyzer(features),
        **NETWORK_FLOAT64,
    )


def test_training_reaches_every_parameter() -> None:
    net = tiny().double().train()
    torch.manual_seed(0)
    output = net(image(2, 3, 48, 40))
    assert set(output.mask.detach().unique().tolist()) == {0.0, 1.0}
    output.restored.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_mask_samples_differ_from_call_to_call() -> None:
    net, x = tiny().train(), image(1, 3, 64, 64).float()
    torch.manual_seed(0)
    with torch.no_grad():
        first, second = net(x).mask, net(x).mask
    assert not torch.equal(first, second)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16), (33, 17), (31, 64)])
def test_any_size_and_a_batch_is_its_images(size: tuple[int, int]) -> None:
    net, x = tiny().double(), image(2, 3, *size)
    with torch.no_grad():
        y = net(x)
        alone = torch.cat([net(x[:1]), net(x[1:])])
    assert y.shape == x.shape
    assert y.isfinite().all()
    torch.testing.assert_close(y, alone, **NETWORK_FLOAT64)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = tiny(5).state_dict()
    torch.manual_seed(2)
    again, other = tiny(5).state_dict(), tiny(6).state_dict()
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert not torch.equal(value, other[name]), name


@pytest.mark.parametrize("seed", range(4))
def test_random_weights_exercise_every_branch(seed: int) -> None:
    net, x = tiny(seed), image(1, 3, 96, 128, seed=seed).float()
    for name, parameter in net.named_parameters():
        assert torch.count_nonzero(parameter) == parameter.numel(), name
    with torch.no_grad():
        features = stage_input(net, x)
        mask = net.mask(net.mask_predictor(features))
        residual = net(x) - x
        assert net.motion_analyzer(features).abs().max() > 0.5
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    low, high = RANDOM_RESIDUAL_STD
    assert low < residual.std() < high


def test_balancing_shifts_by_whole_sixteenths() -> None:
    """Otherwise rounding would give different weights for the same seed on two machines."""
    plain = SPEC.build(**SPEC.variants["tiny"])
    randomize(plain, get("nafnet"), 0)  # a specification without `after_random`
    before, after = (net.mask_predictor.head[-1].bias.data[0] for net in (plain, tiny()))
    shift = round(16 * (before - after).item()) / 16
    assert shift != 0
    assert torch.equal(before - shift, after)


def test_every_parameter_matters() -> None:
    """A change of any tensor changes the output; for those of the predictor, the margin."""
    net = tiny(encoder_blocks=[1, 1, 1, 2]).double()  # the masked blocks are all alike
    x, mask = image(1, 3, 16, 32), blob_mask(1, 2, 4, 0.5)
    with torch.no_grad():
        features = stage_input(net, x)

        def result(of_predictor: bool) -> Tensor:
            return net.mask_predictor(features).diff(dim=1) if of_predictor else net(x, mask)

        before = {of_predictor: result(of_predictor) for of_predictor in (True, False)}
        for name, parameter in net.named_parameters():
            of_predictor, kept = name.startswith("mask_predictor."), parameter.clone()
            parameter.mul_(1.5)
            change = result(of_predictor) - before[of_predictor]
            assert change.abs().max() > NOTICEABLE, name
            parameter.copy_(kept)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        tiny()(image(1, 3, 32, 32).float(), torch.ones(1, 1, 32, 32))
