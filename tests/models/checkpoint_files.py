"""Checkpoints for tests, and the refusal of bad ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.random_weights import randomize

State = dict[str, Tensor]

SMALL: dict[str, Any] = {
    "width": 4,
    "encoder_blocks": [1, 1, 1, 2],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1, 1, 1],
}


SMALL_NETWORKS = ("m2aenet", "nafnet")  # those that SMALL fits
TINY = [
    (name, variant)
    for name in models.NAMES
    for variant in models.get(name).variants
    if variant.startswith("tiny")
]


def random_state(name: str, seed: int = 0, **arguments: Any) -> State:
    spec = models.get(name)
    net = spec.build(**(arguments or SMALL))
    randomize(net, spec, seed)
    return net.state_dict()


def save(content: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(content, dict)
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


def parallel(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def noise(state: State) -> State:
    return {key: torch.ones_like(value) for key, value in state.items()}


def refusal(call: Callable[[], object]) -> str:
    """The one-line message of a refusal; there must be no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeblurExportError) as caught:
            call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def without(state: Mapping[str, Tensor], *keys: str) -> State:
    return {key: value for key, value in state.items() if key not in keys}
