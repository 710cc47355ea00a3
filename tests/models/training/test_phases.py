"""AIBNet is trained one sub-decoder at a time, the other networks as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deblur_export import models
from deblur_export.models.aibnet import AIBNet
from deblur_export.models.checkpoint import load_model
from deblur_export.models.training import phases
from deblur_export.models.training.data.dataset import Dataset
from deblur_export.models.training.schedule import Schedule
from deblur_export.models.training.state import Folder
from deblur_export.models.training.trainer import Options, Trainer
from tests.models.training.quiet import quiet


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    spec = models.get(name)
    net = spec.build(**spec.variants["tiny"])
    phases.prepare(net, fresh=True)
    return net


def trained(net: nn.Module) -> set[str]:
    """The first two parts of the names of all parameters that require a gradient."""
    return {".".join(name.split(".")[:2]) for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("encoder", [True, False])
def test_aibnet_freezes_all_but_one_sub_decoder(encoder: bool) -> None:
    net = build("aibnet")
    assert phases.count(net) == 2
    phases.enter(net, 0, encoder)
    first = trained(net)
    assert {name for name in first if not name.startswith("encoder.")} == {"sub_decoders.0"}
    assert ("encoder.intro" in first) == encoder
    assert not {"encoder.kernel_extra", "encoder.flow"} & first
    phases.enter(net, 1, encoder)
    assert trained(net) == {"sub_decoders.1"}


def test_phase_of_the_encoder_computes_the_same_as_the_network() -> None:
    net, image = build("aibnet"), torch.rand(2, 3, 32, 32)
    assert isinstance(net, AIBNet)
    nn.init.normal_(net.sub_decoders[0].get_submodule("ending").get_parameter("weight"))
    phases.enter(net, 0, encoder=True)
    restored = phases.run(net, image).restored
    net.encoder.requires_grad_(False)
    torch.testing.assert_close(restored, net(image).restored)


def test_presented_leaves_out_parts_of_later_phases() -> None:
    net = build("aibnet")
    assert isinstance(net, AIBNet)
    with phases.presented(net, 0) as shown:
        keys = set(shown.state_dict())
    assert any(key.startswith("sub_decoders.0.") for key in keys)
    assert not any(key.startswith("sub_decoders.1.") for key in keys)
    assert len(net.sub_decoders) == 2


@pytest.mark.parametrize("name", models.NAMES)
def test_a_fresh_network_starts_from_its_input(name: str) -> None:
    net, image = build(name).eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(image), image, atol=1e-6, rtol=0)


def copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_run_through_both_phases(dataset: Path, tmp_path: Path) -> None:
    """Each phase changes only its own part, starts from the averaged weights and the images of the
    previous one, and leaves a complete network."""
    net = build("aibnet")
    schedule = Schedule(steps=4, minutes=None, phases=2)
    options = Options(schedule, {"model": "aibnet:tiny"}, batch=2, crop=16, validate=100)
    folder = Folder(tmp_path)
    trainer = Trainer(net, Dataset(dataset, "train"), Dataset(dataset, "val"), folder, options)
    states = [copied(net)]
    ended = trainer.next_phase

    def next_phase() -> None:
        states.append(copied(net))
        ended()
        assert load_model("aibnet", None, str(tmp_path / "best.safetensors")).variant == "custom"
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, trainer.average.tensors[name]), name
        states.append(copied(net))
        x = torch.rand(1, 3, 32, 32)
        with torch.no_grad(), phases.presented(net.eval(), 0):
            before = net(x)
        torch.testing.assert_close(net(x), before, atol=1e-6, rtol=0)
        net.train()

    trainer.next_phase = next_phase  # type: ignore[method-assign]
    with quiet() as display:
        assert trainer.run(display)
    first, second = changed(*states[:2]), changed(states[2], copied(net))
    assert any(name.startswith("encoder.encoders.") for name in first)
    assert any(name.startswith("sub_decoders.0.") for name in first)
    assert not any(name.startswith("sub_decoders.1.") for name in first)
    assert second and all(name.startswith("sub_decoders.1.") for name in second)
    last = load_model("aibnet", "tiny", str(tmp_path / "last.safetensors"))
    assert np.isfinite(last.net(torch.rand(1, 3, 20, 20)).detach().numpy()).all()
