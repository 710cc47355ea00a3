"""Names, signatures and hyperparameters of the networks."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.spec import ModelSpec, count_blocks
from tests.models.random_arguments import random_arguments

VARIANTS = [(name, variant) for name in models.NAMES for variant in models.get(name).variants]


def build(spec: ModelSpec, arguments: dict[str, Any]) -> nn.Module:
    """Build on the meta device: allocating 68 million weights would slow the tests down."""
    with torch.device("meta"):
        return spec.build(**arguments)


def test_names() -> None:
    assert list(models.NAMES) == sorted(models.NAMES)
    assert {"m2aenet", "nafnet"} < set(models.NAMES)
    assert [models.get(name).name for name in models.NAMES] == list(models.NAMES)


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ("nafent", "did you mean 'nafnet'"),
        ("NAFNet", "did you mean 'nafnet'"),
        ("m2ae", "did you mean 'm2aenet'"),
        ("zzz", f"known models: {', '.join(models.NAMES)}"),
        ("", f"known models: {', '.join(models.NAMES)}"),
    ],
)
def test_unknown_name_gets_the_closest_name_or_all_names(wrong: str, answer: str) -> None:
    with pytest.raises(DeblurExportError) as caught:
        models.get(wrong)
    assert f"unknown model '{wrong}'" in str(caught.value)
    assert answer in str(caught.value)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_variant_is_recovered_from_its_state_dict(name: str, variant: str) -> None:
    spec = models.get(name)
    arguments = dict(spec.variants[variant])
    state = build(spec, arguments).state_dict()
    assert spec.hyperparameters(state) == arguments
    assert spec.variant_of(spec.hyperparameters(state)) == variant


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(more, marks=pytest.mark.slow) for more in range(2, 6))]
)
@pytest.mark.parametrize("name", models.NAMES)
def test_hyperparameters_of_random_networks_are_recovered(name: str, seed: int) -> None:
    spec, arguments = models.get(name), random_arguments(name, seed)
    state = build(spec, arguments).state_dict()
    recovered = spec.hyperparameters(state)
    assert recovered == arguments
    assert spec.variant_of(recovered) == "custom"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", models.NAMES)
def test_a_state_dict_matches_exactly_its_own_signature(name: str, seed: int) -> None:
    state = build(models.get(name), random_arguments(name, seed)).state_dict()
    assert [n for n in models.NAMES if models.get(n).matches(state)] == [name]


@pytest.mark.parametrize("name", models.NAMES)
def test_a_state_dict_without_a_required_key_matches_nothing(name: str) -> None:
    spec = models.get(name)
    state = build(spec, random_arguments(name, 0)).state_dict()
    for key in spec.keys_present:
        assert not spec.matches(state.keys() - {key})


def test_the_first_variant_is_the_papers() -> None:
    assert models.get("nafnet").default_variant == "32"
    assert models.get("m2aenet").default_variant == "base"


def test_count_blocks_counts_children_not_keys() -> None:
    keys = ["a.0.w", "a.0.b", "a.1.w", "a.10.w", "ab.3.w", "b.a.4.w"]
    assert count_blocks(keys, "a.") == 3
    assert count_blocks(keys, "c.") == 0


def test_listing_names_imports_no_torch() -> None:
    code = (
        "import json, sys; from deblur_export import models; "
        "print(json.dumps([models.NAMES, 'torch' in sys.modules]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="locale", check=True
    )
    assert json.loads(run.stdout) == [list(models.NAMES), False]
