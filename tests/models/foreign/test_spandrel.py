"""Checkpoints of the architectures that spandrel knows enter the line by their weights alone."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from deblur_export.cli import cli
from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.checkpoint.files import read_checkpoint
from deblur_export.models.checkpoint.recognise import is_known
from deblur_export.models.foreign import spandrel_source
from deblur_export.models.foreign.examine import Given
from deblur_export.models.foreign.spandrel_source import (
    OF_TORCHVISION,
    Spandrel,
    installed,
)
from deblur_export.models.loading import NetworkChoice, choice_of
from tests import needs

SLOW = ("FFTformer", "KBNet", "OmniSR", "RetinexFormer")  # to probe
ARCHITECTURES = ("Compact", "DnCNN", "ESRGAN", "PLKSR", "SAFMN", "SwinIR", *SLOW)
State = dict[str, Tensor]
BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/spandrel_variants.py."""
    needs.SPANDREL.require()
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("spandrel_variants")


@pytest.fixture
def state(variants: ModuleType) -> Callable[[str], State]:
    """The weights of a small variant."""

    def weights(architecture: str) -> State:
        return dict(variants.network(architecture).state_dict())

    return weights


def saved(folder: Path, content: Mapping[str, Any]) -> Path:
    path = folder / "net.pth"
    torch.save(dict(content), path)
    return path


def load(path: Path, **options: Any) -> LoadedModel:
    return NetworkChoice(None, str(path), **options).load()


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=pytest.mark.matrix if name in SLOW else ())
        for name in (*ARCHITECTURES, "RCAN", "SPAN")
    ],
)
def test_recognised_with_the_same_result(
    architecture: str, variants: ModuleType, tmp_path: Path
) -> None:
    net = variants.network(architecture)
    loaded = load(saved(tmp_path, {"params": net.state_dict()}))
    identity, facts = loaded.identity, loaded.facts
    assert (identity.origin, identity.where) == ("spandrel", architecture)
    assert loaded.spec.name == architecture.lower() and loaded.key == "params"
    assert facts["scale"].by == facts["channels"].by == facts["range"].by == "given"
    side = loaded.images.padded(48, 48)[0]
    image = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0))
    kept = image.clone()
    with torch.no_grad():
        assert torch.equal(loaded.net(image), net(image.clone()))
    assert torch.equal(image, kept), "RCAN writes into its input"


def test_spandrel_says_what_is_accepted_and_the_probe_what_a_graph_needs(
    state: Callable[[str], State], tmp_path: Path
) -> None:
    """SwinIR pads to its windows inside; its description asks for 16 pixels and no multiple."""
    loaded = load(saved(tmp_path, state("SwinIR")))
    values = {name: (fact.value, fact.by) for name, fact in loaded.facts.items()}
    assert values["multiple"] == (8, "found") and values["padding"] == ("reflect", "found")
    assert values["minimum"] == (16, "given") and loaded.images.minimum == 16


def test_what_the_user_says_goes_before(state: Callable[[str], State], tmp_path: Path) -> None:
    given = Given(minimum=32, padding="zeros", output_range=(0.0, 2.0))
    loaded = load(saved(tmp_path, state("SwinIR")), given=given)
    assert loaded.images.minimum == 32 and loaded.images.padding == "zeros"
    assert loaded.facts["output_range"].value == (0.0, 2.0)


def test_a_recorded_network_is_not_probed_again(
    state: Callable[[str], State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(saved(tmp_path, state("Compact")))
    monkeypatch.delattr(spandrel_source, "examine")
    again = choice_of(loaded).load()
    assert (again.sha256, again.images) == (loaded.sha256, loaded.images)


def moved(weights: Mapping[str, Tensor]) -> State:
    return {name: value + 1 for name, value in weights.items()}


def test_of_two_sets_the_averaged_one_as_spandrel_does(
    state: Callable[[str], State], tmp_path: Path
) -> None:
    weights = state("Compact")
    path = saved(tmp_path, {"params": weights, "params_ema": moved(weights)})
    keys = {ema: load(path, ema=ema).key for ema in (None, True, False)}
    assert keys == {None: "params_ema", True: "params_ema", False: "params"}
    loaded = load(path)
    assert "--no-ema takes 'params'" in loaded.notes[0]
    assert choice_of(loaded).load().sha256 == loaded.sha256


def test_prefixes_and_what_stands_beside_the_network(
    state: Callable[[str], State], tmp_path: Path
) -> None:
    """A checkpoint of Lightning: the network, that of its loss, and a counter of thop."""
    weights = state("Compact")
    content: State = {f"net_g.module.{name}": value for name, value in weights.items()}
    content["net_g.total_ops"] = torch.zeros(1, dtype=torch.float64)
    content["loss.vgg.0.weight"] = torch.rand(4, 3, 3, 3)
    loaded = load(saved(tmp_path, {"state_dict": content, "epoch": 3}))
    assert loaded.key == "state_dict.net_g" and loaded.identity.where == "Compact"


def test_a_part_of_a_network_is_not_taken_for_one(
    state: Callable[[str], State], tmp_path: Path
) -> None:
    weights = {f"upscaler.{name}": value for name, value in state("Compact").items()}
    with pytest.raises(DeblurExportError, match="none of the known models"):
        load(saved(tmp_path, {**weights, "detector.weight": torch.rand(3)}))


def test_nafnet_is_the_one_of_this_package(state: Callable[[str], State], tmp_path: Path) -> None:
    assert load(saved(tmp_path, state("NAFNet"))).identity.origin == "built-in"
    assert not is_known(read_checkpoint(saved(tmp_path, state("KBNet")))), "its blocks have more"


def test_weights_that_spandrel_cannot_load(state: Callable[[str], State], tmp_path: Path) -> None:
    weights = state("Compact")
    del weights["body.2.bias"]
    with pytest.raises(DeblurExportError, match="takes it for RealESRGAN Compact and cannot load"):
        load(saved(tmp_path, weights))
    weights = state("Compact")
    weights["body.0.bias"][0] = float("nan")
    with pytest.raises(DeblurExportError, match="1 tensors contain NaN"):
        load(saved(tmp_path, weights))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"variant": "32"}, "need --model"), ({"arguments": "{'dim': 3}"}, "need --model")],
)
def test_options_for_other_networks(
    options: dict[str, Any], message: str, state: Callable[[str], State], tmp_path: Path
) -> None:
    with pytest.raises(DeblurExportError, match=message):
        load(saved(tmp_path, state("Compact")), **options)


def test_unknown_weights_say_what_was_tried(
    variants: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, {"stem.weight": torch.rand(3)})
    with pytest.raises(DeblurExportError, match=r"nor any of the \d\d architectures of spandrel"):
        load(path)
    with pytest.raises(DeblurExportError, match="no tensors inside"):
        load(saved(tmp_path, {}))
    with pytest.raises(DeblurExportError, match=r"spandrel 0\.5\.0 is installed, which is not"):
        monkeypatch.setattr(spandrel_source, "version", lambda name: "0.5.0")
        load(saved(tmp_path, {"stem.weight": torch.rand(3)}))


def test_without_spandrel_a_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeblurExportError, match=r"pip install --no-deps \"spandrel>=0.4.2,<0.5\""):
        load(saved(tmp_path, {"stem.weight": torch.rand(3)}))


@pytest.mark.parametrize("failure", [ImportError, RuntimeError])
def test_torchvision_that_does_not_import(
    failure: type[Exception], variants: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of another build of torch it raises a RuntimeError, which is no ImportError."""
    (tmp_path / "torchvision").mkdir()
    code = f"raise {failure.__name__}('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision" / "__init__.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "spandrel")]:
        monkeypatch.delitem(sys.modules, name)
    package = installed()
    assert package.torchvision == "operator torchvision::nms does not exist"
    assert len(package.architectures) >= 42 and not set(OF_TORCHVISION) & set(sys.modules)


@pytest.mark.parametrize(
    ("purpose", "identity", "channels", "message"),
    [
        ("Inpainting", "MAT", (3, 3), "needs a mask besides the image"),
        ("Restoration", "DDColor", (1, 3), "images of 3 channels of images of 1"),
        ("FaceSR", "RestoreFormer", (3, 3), r"needs torchvision, .* \(no such module\)"),
    ],
)
def test_networks_that_cannot_enter(
    purpose: str, identity: str, channels: tuple[int, int], message: str
) -> None:
    descriptor = SimpleNamespace(
        architecture=SimpleNamespace(id=identity, name=identity),
        purpose=purpose,
        input_channels=channels[0],
        output_channels=channels[1],
    )
    checkpoint: Any = SimpleNamespace(source="net.pth")
    package = Spandrel("0.4.2", (), "no such module")
    with pytest.raises(DeblurExportError, match=f"a checkpoint of {identity}, which .*{message}"):
        spandrel_source._check_kind(checkpoint, descriptor, package)


def test_commands(state: Callable[[str], State], tmp_path: Path) -> None:
    """Export by the weights alone, and verify without naming the network again."""
    path, target = saved(tmp_path, state("Compact")), tmp_path / "net.onnx"
    done = CliRunner().invoke(cli, ["onnx", "--weights", str(path), "-o", str(target)])
    assert done.exit_code == 0 and "recognised compact in" in done.output
    assert "PASS" in CliRunner().invoke(cli, ["verify", str(target)]).output
    refused = CliRunner().invoke(cli, ["verify", str(target), "--model", "SRVGGNet"])
    assert "which spandrel recognises by its weights; leave --model out" in str(refused.exception)
    path.unlink()
    refused = CliRunner().invoke(cli, ["verify", str(target)])
    assert "are not there; pass --weights FILE" in str(refused.exception)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_portable_file_is_verified(architecture: str, line: Callable[[str], Any]) -> None:
    assert line(architecture).fp32()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["Compact", "SwinIR"])
def test_precisions_and_engines(architecture: str, line: Callable[[str], Any]) -> None:
    network = line(architecture)
    assert network.fp16().endswith(" dB") and network.int8()
    for need, column in ((needs.OPENVINO, "openvino"), (needs.RTX, "rtx")):
        if need.installed():
            assert getattr(network, column)()


@pytest.fixture
def line(variants: ModuleType, tmp_path: Path) -> Callable[[str], Any]:
    """bench/architectures.py: a network on its way through the line."""
    architectures = importlib.import_module("architectures")

    def take(architecture: str) -> Any:
        return architectures.Line(architecture, tmp_path)

    return take
