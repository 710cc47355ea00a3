"""SAPHN's non-uniform stages: the selection of points, the computation at them, and training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_export.models.blocks.saphn_nonuniform import NonUniformStage
from deblur_export.models.blocks.saphn_points import (
    STEPS,
    BestQuarter,
    Selection,
    best,
    grid_around,
    pick,
    put,
    sampled,
)
from deblur_export.models.saphn import SAPHN, TrainingOutput, reward
from deblur_export.plugins.ops.deform_conv2d import deform_conv2d_at
from tests.models.test_nafnet import rand
from tests.models.test_saphn import (
    PATTERNS,
    SPEC,
    Layer,
    conv,
    image,
    network,
    paper_attention,
    paper_blocks,
    paper_summary,
    patterns,
)
from tests.tolerances import NETWORK_FLOAT64, NOTICEABLE, OP_FLOAT64

WIDTHS = (8, 16, 16, 24)
QUARTERS = [BestQuarter()] * 3


def nonuniform(seed: int = 0, **arguments: Any) -> SAPHN:
    return network(seed, **(dict(SPEC.variants["tiny-nonuniform"]) | arguments))


def stage() -> NonUniformStage:
    net = nonuniform(widths=list(WIDTHS), encoder_blocks=2, decoder_blocks=1).double()
    upper = net.stages[1]
    assert isinstance(upper, NonUniformStage)
    return upper


def features(n: int, h: int, w: int) -> list[Tensor]:
    """Decoder features of the previous stage."""
    return [rand(n, c, h >> s, w >> s, seed=s) for s, c in enumerate(WIDTHS)]


def masks_of(selections: Sequence[Selection], h: int, w: int) -> list[Tensor]:
    """Masks [N, 1, H, W] of the selected pixels, one for each scale."""
    masks = []
    for chosen in selections:
        mask = torch.zeros(len(chosen.pixel), 1, h, w, dtype=torch.bool)
        for number, pixels in enumerate(chosen.pixel):
            for index, pixel in enumerate(pixels.tolist()):
                if chosen.valid is None or chosen.valid[number, index]:
                    mask[number, 0, pixel // w, pixel % w] = True
        masks.append(mask)
    return masks


# The definition: every pixel of the full size has a feature at every scale; only those of the
# selected pixels are read.


def enlarged(x: Tensor, step: int) -> Tensor:
    return x.repeat_interleave(step, dim=2).repeat_interleave(step, dim=3)


def pointwise(x: Tensor, layer: Layer) -> Tensor:
    weight = layer.weight.flatten(1)
    return torch.einsum("oc,nchw->nohw", weight, x) + layer.bias.view(1, -1, 1, 1)


def around(points: Tensor, grid: Tensor, step: int, layer: Layer) -> Tensor:
    """A 3x3 convolution of the grid whose centre tap reads the point instead."""
    centre = torch.einsum("oc,nchw->nohw", layer.weight[:, :, 1, 1], points - enlarged(grid, step))
    return enlarged(conv(grid, layer), step) + centre


def mixed(module: Layer, uniform: Tensor, values: Tensor, p: Tensor) -> Tensor:
    summary = paper_summary(module, uniform, values)
    return torch.einsum("ncd,ndhw->nchw", summary, p.softmax(dim=1))


def dense_content(
    module: Layer, uniform: Tensor, points: Tensor, grid: Tensor, step: int
) -> Tensor:
    maps = module.maps
    n, _, h, w = points.shape
    cell = torch.arange(grid.shape[2] * grid.shape[3]).view(1, 1, *grid.shape[2:])
    filtered = deform_conv2d_at(
        grid,
        4 * torch.tanh(around(points, grid, step, maps.offset)).flatten(2),
        module.weight,
        module.bias,
        around(points, grid, step, maps.kernel).flatten(2),
        enlarged(cell, step).flatten(1).expand(n, -1),
        kernel=5,
    ).view(n, -1, h, w)
    m = torch.sigmoid(around(points, grid, step, maps.fusion))
    attended = mixed(module, uniform, uniform, around(points, grid, step, maps.p))
    return m * attended + (1 - m) * filtered


def dense_blocks(
    stack: Layer, uniform: Tensor, points: Tensor, grid: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    for block in stack:
        context = conv(uniform, block.conv).clamp(min=0)
        here = pointwise(points, block.point).clamp(min=0)
        points = points + dense_content(block.content, context, here, grid, step)
        uniform = uniform + context
    return uniform, points


def dense_stage(net: Layer, x: Tensor, lower: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    encoder, decoder = net.encoder, net.decoder
    x = paper_blocks(encoder.blocks[0], conv(x, encoder.intro))
    x = x + paper_attention(encoder.cross[0], x, lower[0])
    uniform, points, grids = [x], [x], [x]
    for scale in range(1, len(WIDTHS)):
        step, project = 2 ** (scale - 1), encoder.projects[scale - 1]
        grids.append(pointwise(uniform[-1], project))
        u = conv(uniform[-1], encoder.downs[scale - 1], stride=2)
        s = pointwise(points[-1], project)
        u, s = dense_blocks(encoder.blocks[scale], u, s, grids[scale], step)
        cross = encoder.cross[scale]
        s = s + mixed(cross, u, lower[scale], around(s, grids[scale], step, cross.maps.p))
        uniform.append(u)
        points.append(s)
    u, s, outputs = uniform[-1], points[-1], []
    for scale in range(len(WIDTHS) - 1, -1, -1):
        step = 2 ** max(scale - 1, 0)
        if scale < len(WIDTHS) - 1:
            up, merge = decoder.ups[scale], decoder.merges[scale]
            u = F.conv_transpose2d(u, up.weight, up.bias, stride=2, padding=1)
            s = torch.where(masks[scale], pointwise(s, decoder.writes[scale]), points[scale])
            s = pointwise(s, merge) if scale else conv(s, merge)
        cross, stack = decoder.cross[scale], decoder.blocks[scale]
        if scale:
            p = around(s, grids[scale], step, cross.maps.p)
            s = s + mixed(cross, u, uniform[scale], p)
            u, s = dense_blocks(stack, u, s, grids[scale], step)
        else:
            u = u + s
            u = paper_blocks(stack, u + paper_attention(cross, u, uniform[0]))
        outputs.insert(0, u)
    return [conv(outputs[0], net.ending), *outputs]


@pytest.mark.parametrize("drawn", [False, True])
def test_stage_is_its_dense_definition(drawn: bool) -> None:
    """Also if the images of a batch have lists of different lengths."""
    net, x, lower = stage(), image(2, 3, 8, 16), features(2, 8, 16)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = net.sampler(lower[0])
        logits[0] += 1
        selections = sampled(logits, 3)[0] if drawn else best(net.sampler(lower[0]), QUARTERS[:3])
        residual, decoded = net(x, lower, selections if drawn else None)
        masks = masks_of(selections, 8, 16)
        expected = dense_stage(net, x, lower, masks)
    for computed, exact in zip([residual, *decoded], expected, strict=True):
        torch.testing.assert_close(computed, exact, **NETWORK_FLOAT64)
    if drawn:
        first, second = masks[0].sum((1, 2, 3)).tolist()
        assert first != second
    else:
        assert [mask[0].sum().item() for mask in masks] == [32, 8, 2]


def test_stage_without_any_point_is_its_dense_definition() -> None:
    net, x, lower = stage(), image(2, 3, 8, 8), features(2, 8, 8)
    logits = torch.stack([torch.full((1, 8, 8), -60.0), torch.full((1, 8, 8), 60.0)])
    selections, log_prob = sampled(logits, 3)
    masks = masks_of(selections, 8, 8)
    assert [mask.flatten(1).sum(1).tolist() for mask in masks] == [[0, 64]] * 3
    assert log_prob.abs().max() < 1e-12
    with torch.no_grad():
        residual, _ = net(x, lower, selections)
        expected = dense_stage(net, x, lower, masks)[0]
    torch.testing.assert_close(residual, expected, **NETWORK_FLOAT64)


def test_the_best_points_are_the_highest_scores_of_all() -> None:
    """The best quarter of the best quarter is the best sixteenth, also with equal scores."""
    scores = (3 * rand(2, 1, 16, 24)).round() / 3
    selections = best(scores, QUARTERS[:3])
    for scale, chosen in enumerate(selections, start=1):
        assert chosen.valid is None
        for values, pixels in zip(scores.flatten(1).tolist(), chosen.pixel.tolist(), strict=True):
            order = sorted(range(len(values)), key=lambda pixel: -values[pixel])
            assert pixels == sorted(order[: 16 * 24 // 4**scale])
    assert torch.equal(selections[0].number, selections[0].pixel)
    for finer, coarser in itertools.pairwise(selections):
        assert torch.equal(finer.pixel.gather(1, coarser.number), coarser.pixel)


def test_scores_are_ranked_in_steps() -> None:
    """In a flat region, where scores differ only by rounding, the order is that of the pixels."""
    noise = rand(1, 1, 8, 8) * 1e-6
    flat = best(0.3 + noise, QUARTERS[:1])[0].pixel
    assert flat.tolist() == [list(range(16))]
    order = best(torch.arange(64.0).view(1, 1, 8, 8) * 1.01 / STEPS, QUARTERS[:1])[0].pixel
    assert order.tolist() == [list(range(48, 64))]


def test_drawing_follows_the_probability() -> None:
    logits = torch.zeros(1, 1, 128, 128)
    logits[..., 64:] = -1.0986  # a quarter
    torch.manual_seed(0)
    selections, _ = sampled(logits, 2)
    first, second = masks_of(selections, 128, 128)
    for mask, left, right in ((first, 0.5, 0.25), (second, 0.25, 0.0625)):
        assert mask[..., :64].float().mean() == pytest.approx(left, rel=0.05)
        assert mask[..., 64:].float().mean() == pytest.approx(right, rel=0.1)
    assert (first | ~second).all(), "nested"


def test_padding_is_not_written_back() -> None:
    rows, values = rand(2, 5, 3), rand(2, 4, 3, seed=1)
    number = torch.tensor([[1, 3, 0, 2], [0, 1, 2, 4]])
    valid = torch.tensor([[True, True, False, False], [True, True, True, True]])
    y = put(rows, Selection(number, number, valid), values)
    expected = rows.clone()
    expected[0, [1, 3]] = values[0, :2]
    expected[1, [0, 1, 2, 4]] = values[1]
    assert torch.equal(y, expected)
    assert torch.equal(pick(y, number)[1], values[1])


@pytest.mark.parametrize("step", [1, 2, 4])
def test_neighbours_of_a_point(step: int) -> None:
    x, h, w = rand(2, 3, 3, 5), 3 * step, 5 * step
    pixel = torch.arange(h * w).expand(2, -1)
    grid = grid_around(x, pixel, step)
    patches = F.unfold(x, 3, padding=1).view(2, 3, 9, 3, 5)  # [N, C, taps, h, w]
    taps = enlarged(patches.flatten(1, 2), step).view(2, 3, 9, -1).permute(0, 3, 2, 1)
    without_centre = taps[:, :, [0, 1, 2, 3, 5, 6, 7, 8]].flatten(2)
    torch.testing.assert_close(grid.rim, without_centre, **OP_FLOAT64)
    assert torch.equal(x.flatten(2)[:, :, grid.cell[0]], enlarged(x, step).flatten(2))


def log_probability(probability: Tensor, samples: Sequence[Tensor]) -> Tensor:
    """Log-probability of the draws of each pixel; every remaining pixel is selected or not."""
    alive, total = torch.ones_like(probability), torch.zeros_like(probability)
    for drawn in samples:
        chance = torch.where(drawn > 0, probability, 1 - probability).log()
        total = total + alive * chance
        alive = drawn
    return total


def test_training_output() -> None:
    net, x = nonuniform(widths=[16, 16, 24]).double().train(), image(2, 3, 20, 30)
    torch.manual_seed(0)
    output = net(x)
    assert isinstance(output, TrainingOutput)
    assert output.policy is not None
    policy = output.policy
    assert [o.shape for o in output.outputs] == [x.shape] * 3
    assert output.restored is output.outputs[2]
    assert len(policy.probability) == len(policy.samples) == 2
    total = sum(
        log_probability(g, drawn)
        for g, drawn in zip(policy.probability, policy.samples, strict=True)
    )
    torch.testing.assert_close(policy.log_prob, total, **NETWORK_FLOAT64)
    masks = [mask for drawn in policy.samples for mask in drawn]
    assert {mask.shape for mask in masks} == {(2, 1, 32, 32)}
    counted = torch.stack([mask.sum((1, 2, 3)) for mask in masks]).sum(0)
    assert torch.equal(policy.drawn, counted)
    assert policy.budget == 2 * (32 * 32 // 4 + 32 * 32 // 16)  # three scales, two stages
    target = image(2, 3, 20, 30, seed=1)
    errors = sum((o - target).abs().mean(1, keepdim=True) for o in output.outputs[1:])
    for budget, price in ((policy.budget, 0.5), (10**9, 0.0)):
        changed = output._replace(policy=policy._replace(budget=budget))
        assert (policy.drawn > budget).all() == bool(price)
        torch.testing.assert_close(reward(changed, target), -errors - price, **OP_FLOAT64)


def test_training_forward_equals_inference_under_the_same_selection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_draw(logits: Tensor, scales: int) -> tuple[list[Selection], Tensor]:
        return best(logits, QUARTERS[:scales]), torch.zeros_like(logits)

    net, x = nonuniform().double(), image(2, 3, 16, 35)
    with torch.no_grad():
        expected = net(x)
        drawn = net.train()(x)
        monkeypatch.setattr("deblur_export.models.blocks.saphn_nonuniform.sampled", no_draw)
        output = net(x)
    assert isinstance(output, TrainingOutput)
    assert output.policy is not None
    torch.testing.assert_close(output.restored, expected, **NETWORK_FLOAT64)
    assert (output.policy.drawn == output.policy.budget).all()
    assert (drawn.restored - expected).abs().max() > NOTICEABLE


def test_training_reaches_every_parameter() -> None:
    net, x = nonuniform().double().train(), image(2, 3, 16, 32)
    torch.manual_seed(0)
    output = net(x)
    assert isinstance(output, TrainingOutput)
    assert output.policy is not None
    loss = sum((o - x.flip(3)).abs().mean() for o in output.outputs)
    (loss - (reward(output, x).detach() * output.policy.log_prob).sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("context.q.bias"):  # cancels in the softmax
            assert (parameter.grad * parameter).abs().max() > 1e-13, name


def test_the_sampler_decides_where_points_are() -> None:
    net, x = nonuniform().double(), image(1, 3, 16, 32)
    with torch.no_grad():
        before = net(x)
        last: Layer = net.get_submodule("stages.2.sampler.4")
        last.weight.neg_()
        after = net(x)
        last.weight.mul_(-2)
        last.bias.mul_(2)
        scaled = net(x)
    assert (after - before).abs().max() > NOTICEABLE
    torch.testing.assert_close(scaled, before, **NETWORK_FLOAT64)


def test_a_selection_can_be_replaced() -> None:
    """A comparison with the selection of another runtime needs this."""
    net, x, lower = stage(), image(1, 3, 8, 16), features(1, 8, 16)
    other = best(-net.sampler(lower[0]), QUARTERS)
    with torch.no_grad():
        expected, _ = net(x, lower, other)
        before, _ = net(x, lower)
        for module, chosen in zip(net.select, other, strict=True):
            module.register_forward_hook(lambda m, i, o, number=chosen.number: number)
        replaced, _ = net(x, lower)
    torch.testing.assert_close(replaced, expected, **NETWORK_FLOAT64)
    assert (replaced - before).abs().max() > NOTICEABLE


def test_keys() -> None:
    extra = """
    stages.K.sampler.I stages.K.encoder.projects.I stages.K.decoder.writes.I
    stages.K.decoder.merges.I stages.K.encoder.blocks.I.I.point stages.K.decoder.blocks.I.I.point
    """
    with torch.device("meta"):
        state = SPEC.build(**SPEC.variants["nonuniform"]).state_dict()
    assert patterns(list(state)) == set(PATTERNS.split()) | set(extra.split())
    assert not any(key.startswith("stages.0.sampler.") for key in state)
    shapes = {
        "stages.1.sampler.0.weight": (32, 32, 3, 3),
        "stages.2.sampler.4.weight": (1, 32, 3, 3),
        "stages.1.encoder.projects.1.weight": (128, 64, 1, 1),
        "stages.1.decoder.writes.0.weight": (32, 64),
        "stages.1.decoder.merges.0.weight": (32, 32, 3, 3),
        "stages.1.decoder.merges.2.weight": (128, 128),
        "stages.2.encoder.blocks.3.1.point.weight": (128, 128),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
