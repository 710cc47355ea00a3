"""How training code writes checkpoints: each of these layouts gives the same weights."""

from __future__ import annotations

import argparse
import copy
import datetime
import enum
import functools
import pathlib
import random
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deblur_export import models
from deblur_export.models.checkpoint import fingerprint, load_model
from tests.models.checkpoint_files import SMALL, State, random_state, refusal

STATE = random_state("nafnet")


def other(state: State) -> State:
    """Different weights of the same network."""
    return {key: value + 1 for key, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}.{key}": value for key, value in state.items()}


def within(state: State, segment: str, after: str) -> State:
    """With a module around each block: encoders.0._orig_mod.0.conv1.weight."""
    return {
        (f"{after}.{segment}.{key[len(after) + 1 :]}" if key.startswith(f"{after}.") else key): v
        for key, v in state.items()
    }


def profiled(state: State) -> State:
    """After thop.profile: two counters in every module."""
    modules = {key.rpartition(".")[0] for key in state} | {""}
    counters = {
        f"{module}.{name}".lstrip("."): torch.zeros(1, dtype=torch.float64)
        for module in modules
        for name in ("total_ops", "total_params")
    }
    return {**state, **counters}


def adam(state: State) -> dict[str, Any]:
    """The state of an optimizer that has made a step."""
    parameters = [nn.Parameter(value.clone()) for value in state.values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def averaged(state: State) -> dict[str, Tensor]:
    net = models.get("nafnet").build(**SMALL)
    net.load_state_dict(state)
    return AveragedModel(net).state_dict()


def lightning(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'psnr'}": {"best_model_score": torch.tensor(31.5)}
        },
        "optimizer_states": [adam(STATE)],
        "lr_schedulers": [{"_last_lr": [1e-3]}],
        **more,
    }


def nested(state: State) -> dict[str, Any]:
    """A dict for every module."""
    tree: dict[str, Any] = {}
    for key, value in state.items():
        *path, leaf = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    return tree


def children(state: State) -> dict[str, Any]:
    """The state dict of every child apart, as {"encoders": ..., "intro": ...}."""
    names = dict.fromkeys(key.partition(".")[0] for key in state)
    return {
        name: {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(f"{name}.")}
        for name in names
    }


def parameters(state: State) -> dict[str, nn.Parameter]:
    return OrderedDict((key, nn.Parameter(value)) for key, value in state.items())


class Phase(enum.Enum):
    """An enumeration of a script, which no checkpoint of others should need."""

    TRAIN = 1


DISCRIMINATOR = {f"conv{i}.weight": torch.ones(4, 4, 3, 3) for i in range(5)}
VGG = {f"perceptual.vgg.{i}.weight": torch.ones(4, 4, 3, 3) for i in range(5)}
NUMPY = {"best_psnr": np.float64(31.5), "step": np.int64(3), "scale": np.float32(0.5)}
ARGS = argparse.Namespace(lr=1e-3, data=pathlib.PurePosixPath("/data"), when=None)

LAYOUTS: dict[str, Callable[[State], object]] = {
    # BasicSR and what follows it (NAFNet, Restormer, MIRNet, HINet, Real-ESRGAN, SwinIR)
    "BasicSR params": lambda s: {"params": s},
    "BasicSR params_ema alone": lambda s: {"params_ema": s},
    "BasicSR both": lambda s: {"params": s, "params_ema": other(s)},
    "BasicSR both, averaged first": lambda s: {"params_ema": other(s), "params": s},
    "BasicSR DataParallel": lambda s: {"params": under("module", s)},
    "BasicSR no average kept": lambda s: {"params_ema": None, "params": s},
    "Restormer": lambda s: {"params": OrderedDict(s)},
    "MPRNet": lambda s: {"epoch": 3, "state_dict": under("module", s), "optimizer": adam(s)},
    "MIMO-UNet": lambda s: {"model": s},
    "HINet": lambda s: {"params": s, "iter": 200_000},
    "Uformer": lambda s: {"epoch": 3, "state_dict": s, "optimizer": adam(s)},
    "DeblurGAN-v2": lambda s: {"model": under("module", s)},
    "net_g": lambda s: {"net_g": s, "net_d": DISCRIMINATOR},
    "net_g and net_g_ema": lambda s: {"net_g": s, "net_g_ema": other(s), "net_d": DISCRIMINATOR},
    "netG": lambda s: {"netG": s, "netG_EMA": other(s)},
    "generator": lambda s: {"generator": s, "discriminator": DISCRIMINATOR, "epoch": 1},
    # Lightning
    "Lightning net.": lambda s: lightning(under("net", s)),
    "Lightning model.": lambda s: lightning(under("model", s)),
    "Lightning model.net.": lambda s: lightning(under("model.net", s)),
    "Lightning self": lambda s: lightning(s),
    "Lightning with a loss network": lambda s: lightning({**under("net", s), **VGG}),
    "Lightning compiled": lambda s: lightning(under("net._orig_mod", s)),
    "Lightning with an average": lambda s: lightning(
        {**under("net", s), **under("ema.module", other(s)), "ema.n_averaged": torch.tensor(7)}
    ),
    "Lightning hyperparameters": lambda s: lightning(
        under("net", s), hyper_parameters={"args": ARGS, "numpy": NUMPY}
    ),
    "Fabric": lambda s: {"model": s, "optimizer": adam(s), "iter_num": 3},
    # torch
    "state dict": lambda s: s,
    "OrderedDict": OrderedDict,
    "parameters": parameters,
    "DataParallel": lambda s: under("module", s),
    "DistributedDataParallel of compiled": lambda s: under("module._orig_mod", s),
    "compiled": lambda s: under("_orig_mod", s),
    "compiled of DataParallel": lambda s: under("_orig_mod.module", s),
    "compiled stages": lambda s: within(s, "_orig_mod", "encoders.0"),
    "DataParallel inside": lambda s: under("net", within(s, "module", "encoders")),
    "FSDP": lambda s: {"model": within(s, "_fsdp_wrapped_module", "encoders.0")},
    "activation checkpoints": lambda s: within(s, "_checkpoint_wrapped_module", "encoders.3"),
    "AveragedModel": averaged,
    "model beside AveragedModel": lambda s: {"model": s, "swa_model": averaged(other(s))},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": adam(s)},
    "modelState": lambda s: {"modelState": s, "loss": 0.1},
    "requires_grad kept": lambda s: {k: v.clone().requires_grad_() for k, v in s.items()},
    "views of one storage": lambda s: views(s),
    "transposed memory": lambda s: {k: channels_last(v) for k, v in s.items()},
    "attribute on a parameter": lambda s: attributed(s),
    # other frameworks
    "timm": lambda s: {"epoch": 3, "arch": "nafnet", "state_dict": s, "state_dict_ema": other(s)},
    "timm without an average": lambda s: {"state_dict": s, "metric": np.float64(0.5), "args": ARGS},
    "ModelEma": lambda s: {"model": s, "model_ema": under("module", other(s))},
    "Hugging Face": lambda s: under("model", s),
    "Hugging Face, wrapped twice": lambda s: {"state_dict": under("base_model.model", s)},
    "MMEditing": lambda s: {
        "meta": {"iter": 3, "time": "2024"},
        "state_dict": {
            **under("generator", s),
            **under("generator_ema", other(s)),
            "step_counter": torch.tensor([3]),
            "data_preprocessor.mean": torch.zeros(3, 1, 1),
        },
    },
    "MMEngine": lambda s: {
        "meta": {"seed": 1},
        "state_dict": s,
        "ema_state_dict": {**under("module", other(s)), "steps": torch.tensor(3)},
        "message_hub": {"log_scalars": deque([1.0], maxlen=5)},
    },
    "ema-pytorch": lambda s: {
        **under("online_model", s),
        **under("ema_model", other(s)),
        "initted": torch.tensor([True]),
        "step": torch.tensor([3]),
    },
    "DeepSpeed": lambda s: {"module": s, "dp_world_size": 1, "buffer_names": []},
    "Ignite": lambda s: {"trainer": {"epoch": 1}, "model": s},
    "fairseq": lambda s: {"args": ARGS, "model": s, "extra_state": {"val": np.float32(3)}},
    "accelerate": lambda s: {"model": under("module", s), "scaler": {"scale": 65536.0}},
    "YOLO style": lambda s: {"epoch": -1, "best_fitness": np.array(0.3), "model": s},
    # wrappers by any name, at any depth
    "any name": lambda s: {"weights_of_my_net": s},
    "any depth": lambda s: {"a": {"b": [None, {"c": under("d.e", s)}]}},
    "in a list": lambda s: [s, {"epoch": 3}],
    "in a tuple": lambda s: (3, s),
    "nested by module": nested,
    "children apart": children,
    "nested under a name": lambda s: {"net": nested(s)},
    "defaultdict": lambda s: defaultdict(list, s),
    # beside the weights
    "counters beside": lambda s: {**s, "epoch": 3, "best": 31.5, "note": "text", "none": None},
    "optimizer in the same dict": lambda s: {**s, "optimizer": adam(s)},
    "thop": profiled,
    "thop in a wrapper": lambda s: {"state_dict": under("module", profiled(s))},
    "NumPy scalars": lambda s: {"state_dict": s, **NUMPY},
    "NumPy arrays": lambda s: {"state_dict": s, "losses": np.arange(9.0), "names": np.array(["a"])},
    "random states": lambda s: {
        "state_dict": s,
        "rng": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
    },
    "Namespace": lambda s: {"state_dict": s, "args": ARGS, "opt": types.SimpleNamespace(a=1)},
    "dates and paths": lambda s: {
        "state_dict": s,
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
        "took": datetime.timedelta(hours=3),
        "data": pathlib.Path("data"),
    },
    "torch's version": lambda s: {"state_dict": s, "torch": torch.__version__},
    "dtype, device and size": lambda s: {
        "state_dict": s,
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "size": torch.Size([1, 3]),
    },
    "containers": lambda s: {
        "state_dict": s,
        "more": [Counter("abc"), {1, 2}, (1, 2), 3 + 4j, b"bytes", bytearray(b"b"), range(3)],
    },
    "partial": lambda s: {"state_dict": s, "schedule": functools.partial(int, "3")},
    "optimizer object": lambda s: {"state_dict": s, "optimizer": sgd(s)},
    "the same dict twice": lambda s: {"state_dict": s, "model": s},
    "the same tensors twice": lambda s: {"state_dict": s, "model": dict(s)},
    "equal copies": lambda s: {"state_dict": s, "best": copy.deepcopy(s)},
    "module. beside equal keys": lambda s: {**s, **under("module", s)},
}


def views(state: State) -> State:
    """Every tensor a part of one flat storage."""
    flat = torch.cat([value.flatten() for value in state.values()])
    parts = flat.split([value.numel() for value in state.values()])
    return {k: part.view(v.shape) for (k, v), part in zip(state.items(), parts, strict=True)}


def channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def attributed(state: State) -> dict[str, nn.Parameter]:
    found = parameters(state)
    found["intro.weight"].group = "first"  # type: ignore[attr-defined]
    return found


def sgd(state: State) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(v.clone()) for v in state.values()], lr=0.1, momentum=0.9)


def test_there_are_enough() -> None:
    assert len(LAYOUTS) >= 54


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(LAYOUTS[layout](STATE), path)
    model = load_model(None, None, str(path))
    assert (model.title, model.sha256) == ("nafnet:custom", fingerprint(STATE))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "thop" in name])
def test_profilers_counters_are_said(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(LAYOUTS[layout](STATE), path)
    (note,) = load_model(None, None, str(path)).notes
    assert "counters of training and profiling tools (total_ops, total_params)" in note


@pytest.mark.parametrize("name", ["code.PTH", "pytorch_model.bin", "net.pkl", "net", "net.pth.tar"])
@pytest.mark.parametrize("old", [False, True])
def test_any_suffix(name: str, old: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=not old)
    assert load_model(None, None, str(path)).sha256 == fingerprint(STATE)
    if not old:
        safetensors.torch.save_file(under("net", STATE), path)
        assert load_model(None, None, str(path)).key == "net"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_any_pickle_protocol(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    for new in (True, False):
        content = {"state_dict": STATE, **NUMPY, "args": ARGS}
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
        assert load_model(None, None, str(path)).sha256 == fingerprint(STATE)


@pytest.mark.parametrize(
    ("layout", "last", "average"),
    [
        ("BasicSR both", "params", "params_ema"),
        ("BasicSR both, averaged first", "params", "params_ema"),
        ("net_g and net_g_ema", "net_g", "net_g_ema"),
        ("netG", "netG", "netG_EMA"),
        ("Lightning with an average", "state_dict.net", "state_dict.ema"),
        ("model beside AveragedModel", "model", "swa_model"),
        ("timm", "state_dict", "state_dict_ema"),
        ("ModelEma", "model", "model_ema"),
        ("MMEditing", "state_dict.generator", "state_dict.generator_ema"),
        ("MMEngine", "state_dict", "ema_state_dict"),
        ("ema-pytorch", "online_model", "ema_model"),
    ],
)
def test_two_sets(layout: str, last: str, average: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(LAYOUTS[layout](STATE), path)
    for asked in (None, False):
        model = load_model("nafnet", None, str(path), ema=asked)
        assert (model.key, model.ema, model.sha256) == (last, False, fingerprint(STATE))
        assert f"'{last}' is taken" in model.notes[0]
        assert model.notes[0].endswith(f"--ema takes '{average}'")
    model = load_model(None, None, str(path), ema=True)
    assert (model.key, model.ema, model.sha256) == (average, True, fingerprint(other(STATE)))
    assert model.notes[0].endswith(f"--no-ema takes '{last}'")


def test_one_set_is_no_choice(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    for key, asked in (("params", True), ("params_ema", False)):
        torch.save({key: STATE}, path)
        model = load_model(None, None, str(path))
        assert (model.key, model.ema, model.notes) == (key, None, ())
        assert load_model(None, None, str(path), ema=not asked).ema is not asked
        message = refusal(lambda asked=asked: load_model(None, None, str(path), ema=asked))
        option = "--ema: it has no averaged" if asked else "--no-ema: it has no other than averaged"
        assert message == f"{path}: {option} weights, only '{key}'; leave the option out"


def test_several_sets_of_the_same_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"student": STATE, "teacher": other(STATE), "third": dict(STATE)}, path)
    message = refusal(lambda: load_model(None, None, str(path)))
    assert "3 different sets of weights fit NAFNet, 'student' and 'teacher' and 'third'" in message


def test_two_sources_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({**STATE, "module.intro.bias": STATE["intro.bias"] + 1}, path)
    message = refusal(lambda: load_model(None, None, str(path)))
    assert "two different tensors for one key (intro.bias, module.intro.bias)" in message


def test_own_advice_is_followed(tmp_path: Path) -> None:
    """What is missing is counted against the closest variant, not against the paper's."""
    path = tmp_path / "net.pth"
    state = random_state("nafnet", **models.get("nafnet").variants["tiny"])
    del state["intro.weight"]
    torch.save({"state_dict": under("net", state)}, path)
    message = refusal(lambda: load_model(None, None, str(path)))
    assert "none of the known models" in message
    assert "select one with --model. It has" in message
    assert "state_dict.net.intro.bias" in message
    message = refusal(lambda: load_model("nafnet", None, str(path)))
    assert "does not fit NAFNet: 1 missing (intro.weight), under 'state_dict.net'" in message


def test_enumerations_of_a_script_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"state_dict": STATE, "phase": Phase.TRAIN}, path)
    message = refusal(lambda: load_model(None, None, str(path)))
    assert (
        "Python objects other than tensors (tests.models.checkpoint.test_layouts.Phase)" in message
    )
