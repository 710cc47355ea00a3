"""TLC: the local form of a network equals the official form with cumulative sums at every size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.blocks.naf import GlobalAveragePool, tlc_window
from deblur_export.models.checkpoint import load_model
from tests.plugins.cases.local_mean import cumulative_sums
from tests.plugins.harness import rand
from tests.tolerances import NETWORK_FLOAT64, NOTICEABLE

LOCAL = [name for name in models.NAMES if models.get(name).local]
SMALL = 32  # training crop of the tests: windows 48, 24, 12, 6, 3


class CumulativeSums(nn.Module):
    """The official implementation of local pooling."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return cumulative_sums(x, self.window)


def local(name: str, train_size: int | None = SMALL) -> nn.Module:
    spec = models.get(name)
    net = spec.build(**spec.variants["tiny"], train_size=train_size).eval()
    net.load_state_dict(load_model(name, "tiny", "random:0").net.state_dict())
    return net.double()


def official(net: nn.Module) -> nn.Module:
    for module in net.modules():
        for child_name, child in module.named_children():
            if isinstance(child, GlobalAveragePool) and child.window is not None:
                setattr(module, child_name, CumulativeSums(child.window))
    return net


SIZES = [(7, 5), (48, 48), (48, 64), (49, 33), (80, 96), (16, 131)]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=[pytest.mark.slow] * (name != "nafnet" and size != (49, 33)))
        for name in LOCAL
        for size in SIZES
    ],
)
def test_equals_the_official_form(name: str, size: tuple[int, int]) -> None:
    x = rand(1, 3, *size, scale=0.2) + 0.5
    with torch.no_grad():
        torch.testing.assert_close(local(name)(x), official(local(name))(x), **NETWORK_FLOAT64)


@pytest.mark.parametrize("name", LOCAL)
def test_is_global_up_to_the_window_and_differs_beyond(name: str) -> None:
    near, beyond = (rand(1, 3, side, side, scale=0.2) + 0.5 for side in (48, 80))
    with torch.no_grad():
        net, whole = local(name), local(name, None)
        torch.testing.assert_close(net(near), whole(near), **NETWORK_FLOAT64)
        assert (net(beyond) - whole(beyond)).abs().max() > NOTICEABLE


def test_windows_are_those_of_the_official_code() -> None:
    assert [tlc_window(256, level) for level in range(5)] == [384, 192, 96, 48, 24]
    assert tlc_window(None, 2) is None
    for size in (0, 16, 100, 512):
        with pytest.raises(ValueError, match="train_size"):
            tlc_window(size, 0)


def test_local_models_have_local_in_their_name() -> None:
    model = load_model("nafnet", "32", "random:0", local=True)
    assert model.title == "nafnet:32-local"
    assert model.arguments["train_size"] == 256


@pytest.mark.parametrize("name", [name for name in models.NAMES if not models.get(name).local])
def test_networks_without_pooling_refuse(name: str) -> None:
    with pytest.raises(DeblurExportError, match="--local is for"):
        load_model(name, "tiny", "random:0", local=True)


@pytest.mark.parametrize(
    ("about", "size"),
    [
        ({"crop": 64}, 64),
        ({"crop": 64.0}, 64),
        ({"crop": 96}, 256),
        ({"crop": "x"}, 256),
        ({}, 256),
        ([], 256),
        (None, 256),
    ],
)
def test_local_pooling_uses_the_training_crop(about: object, size: int, tmp_path: Path) -> None:
    net = load_model("nafnet", "tiny", "random:0").net
    path = tmp_path / "net.safetensors"
    metadata = None if about is None else {"training": json.dumps(about)}
    safetensors.torch.save_file(net.state_dict(), path, metadata)
    model = load_model(None, None, str(path), local=True)
    assert repr(model.arguments["train_size"]) == repr(size)
    assert model.variant == "tiny-local"
    assert "train_size" not in load_model(None, None, str(path)).arguments


@pytest.mark.parametrize(("frozen", "encoder"), [(False, 64), (True, None)])
def test_aibnets_encoder_uses_its_own_training_crop(
    frozen: bool, encoder: int | None, tmp_path: Path
) -> None:
    net = load_model("aibnet", "tiny", "random:0").net
    path = tmp_path / "net.safetensors"
    about = {"crop": 64, "frozen_encoder": frozen}
    safetensors.torch.save_file(net.state_dict(), path, {"training": json.dumps(about)})
    model = load_model(None, None, str(path), local=True)
    assert model.arguments["train_size"] == 64
    assert model.arguments.get("encoder_train_size") == encoder
    assert model.variant == "tiny-local"


def test_random_weights_pool_as_after_crops_of_256() -> None:
    arguments = load_model("aibnet", "tiny", "random:0", local=True).arguments
    assert (arguments["train_size"], arguments["encoder_train_size"]) == (256, 256)
