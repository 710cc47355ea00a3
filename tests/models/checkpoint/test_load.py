"""Checkpoint files: all supported containers, and weights that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint import fingerprint, load_model
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.random_weights import randomize
from tests.models.checkpoint_files import (
    SMALL,
    SMALL_NETWORKS,
    TINY,
    State,
    noise,
    parallel,
    random_state,
    refusal,
    save,
    without,
)

WRAPPINGS: dict[str, Callable[[State], object]] = {
    "raw": lambda s: s,
    "params": lambda s: {"params": s},
    "params wins": lambda s: {"params": s, "params_ema": noise(s)},
    "no ema kept": lambda s: {"params_ema": None, "params": s},
    "state_dict, module.": lambda s: {"epoch": 3, "state_dict": parallel(s)},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer": {"lr": 0.1}},
    "nested": lambda s: {"model": {"state_dict": s}},
    "counters beside tensors": lambda s: {**s, "epoch": 3, "best": 31.5},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_wrapped_state_dicts_load(name: str, wrapping: str, tmp_path: Path) -> None:
    state = random_state(name)
    path = save(WRAPPINGS[wrapping](state), tmp_path / "weights.pth")
    model = load_model(None, None, str(path))
    assert model.spec.name == name
    assert model.sha256 == fingerprint(state)
    assert fingerprint(model.net.state_dict()) == fingerprint(state)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("wrap", [dict, parallel])
def test_every_container_loads(suffix: str, wrap: Callable[[State], State], tmp_path: Path) -> None:
    state = random_state("nafnet")
    path = save(wrap(state), tmp_path / f"weights{suffix}")
    assert load_model(None, None, str(path)).sha256 == fingerprint(state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_precisions_become_float32(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    stored = {key: value.to(dtype) for key, value in random_state("m2aenet").items()}
    path = save(stored, tmp_path / f"weights{suffix}")
    for key, value in load_model(None, None, str(path)).net.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[key].float()), key


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_loaded_model_describes_itself(name: str, tmp_path: Path) -> None:
    path = save(random_state(name), tmp_path / "weights.pth")
    model = load_model(name, None, str(path))
    assert model.variant == "custom"
    assert model.arguments == SMALL
    assert model.title == f"{name}:custom"
    assert model.weights == str(path)
    assert not any(module.training for module in model.net.modules())


@pytest.mark.parametrize(("name", "variant"), TINY)
def test_network_and_variant_are_recognised(name: str, variant: str, tmp_path: Path) -> None:
    state = random_state(name, **models.get(name).variants[variant])
    path = save(state, tmp_path / "weights.safetensors")
    found = load_model(None, None, str(path))
    assert (found.spec.name, found.variant) == (name, variant)
    assert found.sha256 == fingerprint(state)
    assert load_model(name, variant, str(path)).sha256 == fingerprint(state)


def test_random_weights() -> None:
    first, again = (load_model("m2aenet", "tiny", "random:7") for _ in range(2))
    assert first.sha256 == again.sha256 == load_model("m2aenet", "tiny", "random:007").sha256
    assert first.sha256 != load_model("m2aenet", "tiny", "random:8").sha256
    assert first.sha256 != load_model("nafnet", "tiny", "random:7").sha256
    assert first.weights == "random:7"
    assert not any(module.training for module in first.net.modules())
    assert load_model("nafnet", "tiny", f"random:{2**63 - 1}").variant == "tiny"


def test_fingerprint_sees_names_shapes_types_and_values_only() -> None:
    state = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    same = {"b": torch.zeros(2), "a": torch.arange(6.0).repeat_interleave(2)[::2]}
    assert fingerprint(same) == fingerprint(state)
    for other in (
        {**state, "a": state["a"] + torch.eye(6)[5] * 1e-6},
        {**state, "a": state["a"].view(2, 3)},
        {**state, "b": torch.zeros(2, dtype=torch.int32)},  # the same bytes
        {"c": state["a"], "b": state["b"]},
        {"a": state["a"]},
    ):
        assert fingerprint(other) != fingerprint(state)


@pytest.mark.parametrize(
    ("weights", "name", "variant", "message"),
    [
        ("random:0", None, None, "--weights random:0 needs --model"),
        ("random:0", "nafnet", "33", "nafnet has no variant '33'; it has: 32, 64, tiny"),
        ("random:0", "nafent", None, "unknown model 'nafent'; did you mean 'nafnet'?"),
        (f"random:{2**63}", "nafnet", "tiny", "the seed must be below 2**63"),
        ("random:" + 5000 * "9", "nafnet", "tiny", "the seed must be below 2**63"),
        ("random:-1", "nafnet", "tiny", "or random:SEED"),
        ("random:", "nafnet", "tiny", "or random:SEED"),
        ("random:1.5", "nafnet", "tiny", "or random:SEED"),
    ],
)
def test_random_weights_are_refused(
    weights: str, name: str | None, variant: str | None, message: str
) -> None:
    assert message in refusal(lambda: load_model(name, variant, weights))


def test_unknown_variant_of_a_checkpoint(tmp_path: Path) -> None:
    path = save(random_state("nafnet"), tmp_path / "weights.pth")
    assert "nafnet has no variant 'big'" in refusal(lambda: load_model(None, "big", str(path)))


MISFITS: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (lambda s: without(s, "ending.bias"), "1 missing (ending.bias)"),
    "unexpected": (lambda s: {**s, "head.bias": torch.ones(1)}, "1 unexpected (head.bias)"),
    "other shape": (
        lambda s: {**s, "ending.bias": torch.ones(4)},
        "1 of another shape (ending.bias (4,) instead of (3,))",
    ),
    "all three": (
        lambda s: {**without(s, "ending.bias"), "x": torch.ones(1), "intro.bias": torch.ones(9)},
        "1 missing (ending.bias); 1 unexpected (x); 1 of another shape (intro.bias (9,) instead",
    ),
    "many": (
        lambda s: without(s, *(f"downs.{i}.{leaf}" for i in (0, 2) for leaf in ("bias", "weight"))),
        "4 missing (downs.0.bias, downs.0.weight, downs.2.bias, ... 1 more)",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_misfit_names_the_keys(name: str, misfit: str, tmp_path: Path) -> None:
    change, expected = MISFITS[misfit]
    path = save(change(random_state(name)), tmp_path / "weights.pth")
    message = refusal(lambda: load_model(None, None, str(path)))
    assert message.startswith(f"{path} does not fit {models.get(name).title}: ")
    assert expected in message


@pytest.mark.parametrize(("name", "other"), [("nafnet", "m2aenet"), ("m2aenet", "nafnet")])
def test_weights_of_the_other_model(name: str, other: str, tmp_path: Path) -> None:
    path = save(random_state(other, **models.get(other).variants["tiny"]), tmp_path / "weights.pth")
    message = refusal(lambda: load_model(name, None, str(path)))
    assert f"does not fit {models.get(name).title}" in message
    assert message.endswith(f"It looks like --model {other}, variant tiny")


def test_weights_of_another_variant(tmp_path: Path) -> None:
    path = save(random_state("nafnet"), tmp_path / "weights.pth")
    message = refusal(lambda: load_model("nafnet", "tiny", str(path)))
    assert "decoders.0.0.beta (1, 32, 1, 1) instead of (1, 64, 1, 1)" in message
    assert message.endswith("It looks like --model nafnet, variant custom")


def test_foreign_weights(tmp_path: Path) -> None:
    path = save({"fc.weight": torch.ones(2, 2)}, tmp_path / "weights.pth")
    message = refusal(lambda: load_model(None, None, str(path)))
    assert f"match none of the known models ({', '.join(models.NAMES)}); select one" in message
    assert message.endswith("It has 1 tensors: fc.weight")
    message = refusal(lambda: load_model("nafnet", None, str(path)))
    assert message.endswith("It looks like none of the known models")


def test_ambiguous_keys_are_refused(tmp_path: Path) -> None:
    """Two networks side by side: which of them is meant has to be said."""
    states = {name: random_state(name) for name in SMALL_NETWORKS}
    path = save(states, tmp_path / "net.pth")
    message = refusal(lambda: load_model(None, None, str(path)))
    assert f"{path}: its keys match m2aenet and nafnet (" in message
    for name, state in states.items():
        assert load_model(name, None, str(path)).sha256 == fingerprint(state)


@pytest.mark.parametrize("intro", [torch.tensor(1.0), torch.zeros(0, 3, 3, 3)])
def test_shapes_that_fit_no_network(intro: Tensor, tmp_path: Path) -> None:
    state = random_state("nafnet") | {"intro.weight": intro}
    with pytest.raises(DeblurExportError, match=r"do not fit NAFNet|does not fit"):
        load_model("nafnet", None, str(save(state, tmp_path / "net.pth")))


@pytest.mark.parametrize(("levels", "channels"), [((1, 2), 3), ((1, 1, 0), 1), ((1,) * 8, 4)])
def test_nafnet_of_any_levels_and_channels(
    levels: tuple[int, ...], channels: int, tmp_path: Path
) -> None:
    spec = models.get("nafnet")
    blocks = list(levels)
    net = spec.build(2, blocks, 1, blocks[::-1], channels=channels)
    randomize(net, spec, 0)
    path = save(net.state_dict(), tmp_path / "weights.pth")
    model = load_model(None, None, str(path))
    assert model.title == "nafnet:custom"
    assert model.arguments["encoder_blocks"] == blocks
    assert model.images == ImageSpec(2 ** len(levels), channels=channels)
    image = torch.rand(1, channels, 13, 21)
    with torch.no_grad():
        assert torch.equal(model.net(image), net.eval()(image))
        assert model.net(image).shape == image.shape
    if len(levels) == 8:  # 384 pixels are 3 after seven halvings
        with pytest.raises(DeblurExportError, match="no --local for it: there is no pooling"):
            load_model(None, None, str(path), local=True)
    else:
        assert load_model(None, None, str(path), local=True).variant == "custom-local"


def test_nafnet_of_strange_channels_is_refused(tmp_path: Path) -> None:
    net = models.get("nafnet").build(4, [1], 1, [1], channels=5)
    path = save(net.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(DeblurExportError, match="do not fit NAFNet"):
        load_model(None, None, str(path))
