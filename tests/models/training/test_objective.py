"""The loss of every network: the gradient reaches all parameters that are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.commands.train import train
from deblur_export.models import algnet, m2aenet, saphn
from deblur_export.models.random_weights import randomize
from deblur_export.models.training import losses, phases
from deblur_export.models.training.data.dataset import Batch, Dataset
from deblur_export.models.training.objective import (
    IMAGE_TERMS,
    Images,
    Weights,
    default_images,
    policy_loss,
    restoration,
    terms,
)
from deblur_export.models.training.reblur import motion_variation, reblur_loss

TRAINED = [(name, "tiny", 0) for name in models.NAMES]
TRAINED += [("aibnet", "tiny", 1), ("dhnet", "tiny-prior", 0), ("saphn", "tiny-nonuniform", 0)]
# Parameters of the official checkpoints that have no effect on the output.
UNUSED = {
    "algnet": (".conv3_2.", ".gamma"),
    "ufpnet": ("kernel_down.2.", "kernel_down.3."),
}


@pytest.fixture(scope="module")
def batch(dataset: Path) -> Batch:
    return Dataset(dataset, "train").draw(np.random.default_rng(0), 2, 32)


def ready(name: str, variant: str, phase: int) -> nn.Module:
    spec = models.get(name)
    net = spec.build(**spec.variants[variant])
    randomize(net, spec, 0)  # zero residual scales would hide what lies behind them
    phases.prepare(net, fresh=False)
    phases.enter(net, phase, encoder=True)
    return net


@pytest.mark.parametrize(("name", "variant", "phase"), TRAINED)
def test_gradients_reach_trained_parameters_and_no_others(
    name: str, variant: str, phase: int, batch: Batch
) -> None:
    torch.manual_seed(0)
    net = ready(name, variant, phase)
    parts = terms(phases.run(net, batch.blurred), batch, weights_of(name))
    loss = torch.stack(list(parts.values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    unused = UNUSED.get(name, ())
    for key, parameter in net.named_parameters():
        gradient = parameter.grad
        assert gradient is None or gradient.isfinite().all(), key
        reached = gradient is not None and bool((gradient != 0).any())
        expected = parameter.requires_grad and not any(part in key for part in unused)
        assert reached == expected, key


@pytest.mark.parametrize(("name", "variant", "phase"), TRAINED)
def test_bfloat16_changes_the_loss_little(
    name: str, variant: str, phase: int, batch: Batch
) -> None:
    """Custom ops receive mixed dtypes under autocast; the losses themselves stay float32."""
    net, values = ready(name, variant, phase), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            output = phases.run(net, batch.blurred)
        parts = terms(output, batch, weights_of(name))
        assert {part.dtype for part in parts.values()} == {torch.float32}
        values.append(sum(part.item() for name, part in parts.items() if name != "policy"))
    assert values[1] == pytest.approx(values[0], rel=0.1)


def weights_of(name: str) -> Weights:
    return Weights(images=default_images(name))


def test_m2aenet_adds_up_the_terms_of_its_paper(batch: Batch) -> None:
    n, _, height, width = batch.sharp.shape
    flow = torch.randn(n, 4, height // 8, width // 8)
    logits = torch.randn(n, 2, height // 8, width // 8)
    output = m2aenet.TrainingOutput(batch.blurred, logits, logits[:, :1], flow)
    weights = Weights(default_images("m2aenet"), frequency=2, mask=3, reblur=5, variation=7)
    blurred, sharp = batch.blurred, batch.sharp
    expected = {
        "l1": losses.l1(blurred, sharp),
        "ssim": losses.dissimilarity(blurred, sharp),
        "frequency": 2 * losses.frequency(blurred, sharp),
        "mask": 3 * losses.mask_cross_entropy(logits, batch.mask),
        "reblur": 5 * reblur_loss(flow, sharp, blurred),
        "variation": 7 * motion_variation(flow),
    }
    torch.testing.assert_close(dict(terms(output, batch, weights)), expected)


def test_nafnet_trains_with_the_loss_of_its_official_code(batch: Batch) -> None:
    parts = terms(batch.blurred, batch, weights_of("nafnet"))
    assert dict(parts) == {"psnr": losses.negative_psnr(batch.blurred, batch.sharp)}


@pytest.mark.parametrize("name", sorted(set(models.NAMES) - {"nafnet", "m2aenet"}))
def test_the_other_networks_begin_with_charbonnier(name: str, batch: Batch) -> None:
    parts = terms(batch.blurred, batch, weights_of(name))
    assert list(parts) == ["charbonnier", "edge", "frequency"]


def test_the_command_offers_every_image_loss() -> None:
    (option,) = (option for option in train.params if option.name == "images")
    assert getattr(option.type, "choices", None) == tuple(IMAGE_TERMS)


@pytest.mark.parametrize("images", IMAGE_TERMS)
def test_every_image_loss_falls_towards_the_sharp_image(images: Images, batch: Batch) -> None:
    def loss(restored: Tensor) -> float:
        return total(restoration(restored, batch, Weights(images)))

    between = (batch.sharp + batch.blurred) / 2
    assert loss(batch.sharp) < loss(between) < loss(batch.blurred)


def test_the_relative_error_replaces_the_terms_on_images(batch: Batch) -> None:
    weights = Weights(images="relative")
    expected = losses.relative_error(batch.blurred, batch.sharp, batch.blurred)
    assert dict(terms(batch.blurred, batch, weights)) == {"relative": expected}
    field = torch.zeros(len(batch.sharp), 4, 4, 4)
    output = m2aenet.TrainingOutput(batch.blurred, field[:, :2], field[:, :1], field)
    parts = terms(output, batch, weights)
    assert list(parts) == ["relative", "mask", "reblur", "variation"]
    assert parts["relative"] == expected


def test_algnet_compares_each_size_with_the_input_of_that_size(batch: Batch) -> None:
    """An output that is its input has as much of the error left at every size."""
    unchanged = [batch.blurred[..., ::s, ::s] for s in (8, 4, 2, 1)]
    parts = terms(algnet.TrainingOutput(*unchanged), batch, Weights(images="relative"))
    sizes = [(x, batch.sharp[..., ::s, ::s]) for x, s in zip(unchanged, (8, 4, 2, 1), strict=True)]
    expected = sum(losses.relative_error(x, sharp, x) for x, sharp in sizes)
    torch.testing.assert_close(parts["relative"], expected)


def total(parts: Any) -> float:
    return float(sum(part.item() for part in parts.values()))


def test_algnet_is_supervised_at_every_size(batch: Batch) -> None:
    perfect = [batch.sharp[..., ::s, ::s] for s in (8, 4, 2, 1)]
    best = total(terms(algnet.TrainingOutput(*perfect), batch, Weights()))
    for number in range(4):
        spoiled = [x + 0.1 * (i == number) for i, x in enumerate(perfect)]
        assert total(terms(algnet.TrainingOutput(*spoiled), batch, Weights())) > best + 0.05


def test_saphn_is_supervised_after_every_stage(batch: Batch) -> None:
    perfect = (batch.sharp,) * 3
    best = total(terms(saphn.TrainingOutput(batch.sharp, perfect, None), batch, Weights()))
    for number in range(3):
        spoiled = tuple(x + 0.1 * (i == number) for i, x in enumerate(perfect))
        output = saphn.TrainingOutput(spoiled[-1], spoiled, None)
        assert total(terms(output, batch, Weights())) > best + 0.05


def test_policy_prefers_the_draws_of_the_better_pixels(batch: Batch) -> None:
    log_prob = torch.zeros(2, 1, *batch.sharp.shape[-2:], requires_grad=True)
    drawn = torch.tensor([1.0, 1.0])
    worse = batch.sharp.clone()
    worse[1, :, :4] += 0.5
    outputs = (batch.sharp, batch.sharp, worse)
    policy = saphn.Policy((), (), log_prob, drawn, budget=10)
    output = saphn.TrainingOutput(outputs[-1], outputs, policy)
    terms(output, batch, Weights())["policy"].backward()  # type: ignore[no-untyped-call]
    gradient = log_prob.grad
    assert gradient is not None
    assert (gradient[1, :, :4] > 0).all()
    gradient[1, :, :4] = -1
    assert (gradient < 0).all()  # descending makes the draws of these pixels likelier


def test_policy_loss_is_that_of_the_reward_of_each_pixel() -> None:
    """Eq. 5 of arXiv:2402.06117 pixel by pixel, in float64, at a size that needs padding."""
    rng = np.random.default_rng(4)
    sharp, *outputs = (rng.random((2, 3, 5, 6)) for _ in range(4))
    log_prob, drawn, budget = rng.normal(size=(2, 1, 16, 16)), np.array([9.0, 11.0]), 10
    reward = np.zeros((2, 5, 6))
    for n in range(2):
        for y in range(5):
            for x in range(6):
                for output in outputs[1:]:
                    reward[n, y, x] -= np.abs(output[n, :, y, x] - sharp[n, :, y, x]).mean()
                reward[n, y, x] -= 0.5 * (drawn[n] > budget)
    gain = (reward - reward.mean()) * log_prob[:, 0, :5, :6]
    expected = -gain.sum((1, 2)).mean() / budget
    restored = tuple(map(torch.from_numpy, outputs))
    policy = saphn.Policy((), (), torch.from_numpy(log_prob), torch.from_numpy(drawn), budget)
    output = saphn.TrainingOutput(restored[-1], restored, policy)
    loss = policy_loss(output, torch.from_numpy(sharp))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_a_plain_image_is_enough(batch: Batch) -> None:
    expected = restoration(batch.blurred, batch, Weights())
    torch.testing.assert_close(dict(terms(batch.blurred, batch, Weights())), expected)
    assert list(expected) == ["charbonnier", "edge", "frequency"]
