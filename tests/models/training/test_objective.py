"""The loss of every network: the gradient reaches all parameters that are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deblur_export import models
from deblur_export.models import algnet, m2aenet, saphn
from deblur_export.models.random_weights import randomize
from deblur_export.models.training import losses, phases
from deblur_export.models.training.data.dataset import Batch, Dataset
from deblur_export.models.training.objective import Weights, restoration, terms
from deblur_export.models.training.reblur import reblur_loss

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
    loss = torch.stack(list(terms(phases.run(net, batch.blurred), batch, Weights()).values())).sum()
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
        parts = terms(output, batch, Weights())
        assert {part.dtype for part in parts.values()} == {torch.float32}
        values.append(sum(part.item() for name, part in parts.items() if name != "policy"))
    assert values[1] == pytest.approx(values[0], rel=0.1)


def test_m2aenet_adds_up_the_terms_of_its_paper(batch: Batch) -> None:
    n, _, height, width = batch.sharp.shape
    flow = torch.randn(n, 4, height // 8, width // 8)
    logits = torch.randn(n, 2, height // 8, width // 8)
    output = m2aenet.TrainingOutput(batch.blurred, logits, logits[:, :1], flow)
    weights = Weights(frequency=2.0, mask=3.0, reblur=5.0, variation=7.0)
    blurred, sharp = batch.blurred, batch.sharp
    expected = {
        "l1": losses.l1(blurred, sharp),
        "ssim": losses.dissimilarity(blurred, sharp),
        "frequency": 2 * losses.frequency(blurred, sharp),
        "mask": 3 * losses.mask_cross_entropy(logits, batch.mask),
        "reblur": 5 * reblur_loss(flow, sharp, blurred),
        "variation": 7 * losses.total_variation(flow),
    }
    torch.testing.assert_close(dict(terms(output, batch, weights)), expected)


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


def test_policy_prefers_the_draws_of_the_better_image(batch: Batch) -> None:
    log_prob = torch.zeros(2, requires_grad=True)
    drawn = torch.tensor([1.0, 1.0])
    outputs = (batch.sharp, batch.sharp, torch.stack([batch.sharp[0], batch.sharp[1] + 0.5]))
    policy = saphn.Policy((), (), log_prob, drawn, budget=10)
    output = saphn.TrainingOutput(outputs[-1], outputs, policy)
    terms(output, batch, Weights())["policy"].backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert log_prob.grad[0] < 0 < log_prob.grad[1]  # descending makes the first one likelier


def test_a_plain_image_is_enough(batch: Batch) -> None:
    expected = restoration(batch.blurred, batch, Weights())
    torch.testing.assert_close(dict(terms(batch.blurred, batch, Weights())), expected)
    assert list(expected) == ["charbonnier", "edge", "frequency"]
