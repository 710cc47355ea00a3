"""Load networks with weights: from checkpoints, the demo weights of this package, or at random."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.blocks.naf import LOCAL_SIZES
from deblur_export.models.random_weights import randomize
from deblur_export.models.spec import TRAIN_SIZE, ModelSpec

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
RANDOM = re.compile(r"random:0*(\d+)")
DEMO = "demo"
DEMO_FOLDER = Path(models.__file__).parent / "weights"
# torch's message if a pickle contains anything but tensors and containers.
FOREIGN_OBJECT = re.compile("GLOBAL|TorchScript")
SHOWN_KEYS = 3


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights.

    Attributes:
        spec: the network.
        variant: name of the variant, or "custom"; with "-local" for local pooling.
        arguments: constructor arguments.
        net: the network in eval mode and float32.
        weights: the argument of `load_model`: a path, "demo" or "random:SEED".
        sha256: `fingerprint` of the weights.
    """

    spec: ModelSpec
    variant: str
    arguments: Mapping[str, Any]
    net: nn.Module
    weights: str
    sha256: str

    @property
    def title(self) -> str:
        return f"{self.spec.name}:{self.variant}"


def default_weights(name: str | None, variant: str | None) -> str:
    """The weights used if none are given: demo weights if the variant has any, or else random."""
    return DEMO if name and variant and demo_path(name, variant).is_file() else "random:0"


def demo_path(name: str, variant: str) -> Path:
    """The path of a variant's demo weights in the package, whether they exist or not."""
    return DEMO_FOLDER / f"{name}_{variant}.safetensors"


def load_model(
    name: str | None, variant: str | None, weights: str, local: bool = False
) -> LoadedModel:
    """Build a network and load its weights.

    Args:
        name: a name of `models.NAMES`, or None to recognise a checkpoint by its keys.
        variant: a variant of the network. None selects the paper's variant for random weights, the
            first variant with demo weights for these, and for a checkpoint the variant that its
            shapes imply.
        weights: "demo", "random:SEED" or the path of a .pth, .pt, .ckpt or .safetensors file.
        local: pool over windows of 1.5 times the training crop (see `train_size`) instead of the
            whole image (TLC).

    Raises:
        DeblurExportError: the name is unknown, or the file cannot be read or does not fit.
    """
    seed = RANDOM.fullmatch(weights)
    if seed:
        return _random_model(name, variant, weights, seed[1], local)
    path = Path(weights)
    if weights == DEMO:
        name, variant = _demo_variant(name, variant)
        path = demo_path(name, variant)
    state = load_state_dict(path)
    spec = models.get(name) if name else identify(state, weights)
    if variant is not None:
        arguments = _variant(spec, variant)
    elif spec.matches(state):
        arguments = _arguments(spec, state, weights)
    else:
        arguments = spec.variants[spec.default_variant]
    if local:
        arguments = _pooling(spec, arguments, train_size(path), _training(path))
    net = spec.build(**arguments).eval()
    _check_fit(net, state, spec.title, weights)
    net.load_state_dict(state)
    return _loaded(spec, arguments, net, weights)


def _demo_variant(name: str | None, variant: str | None) -> tuple[str, str]:
    if name is None:
        raise DeblurExportError("--weights demo needs --model: there is a file for each network")
    spec = models.get(name)
    having = [v for v in spec.variants if demo_path(spec.name, v).is_file()]
    if variant is None and having:
        return spec.name, having[0]
    if variant not in having:
        files = sorted(path.stem.replace("_", ":") for path in DEMO_FOLDER.glob("*.safetensors"))
        title = spec.name if variant is None else f"{spec.name}:{variant}"
        raise DeblurExportError(
            f"there are no demo weights of {title}, only of {', '.join(files) or 'nothing'}"
        )
    return spec.name, variant


def _random_model(
    name: str | None, variant: str | None, weights: str, digits: str, local: bool
) -> LoadedModel:
    if name is None:
        raise DeblurExportError(
            f"--weights {weights} needs --model: there are no keys to recognise"
        )
    if len(digits) > len(str(2**63)) or int(digits) >= 2**63:
        raise DeblurExportError(f"--weights {weights}: the seed must be below 2**63")
    spec = models.get(name)
    arguments = _variant(spec, variant or spec.default_variant)
    if local:
        arguments = _pooling(spec, arguments, TRAIN_SIZE, {})
    net = spec.build(**arguments).eval()
    randomize(net, spec, int(digits))
    return _loaded(spec, arguments, net, weights)


def _loaded(
    spec: ModelSpec, arguments: Mapping[str, Any], net: nn.Module, weights: str
) -> LoadedModel:
    return LoadedModel(
        spec, spec.variant_of(arguments), arguments, net, weights, fingerprint(net.state_dict())
    )


def _arguments(spec: ModelSpec, state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The constructor arguments that the shapes of a state dict imply."""
    try:
        arguments = spec.hyperparameters(state)
        spec.build(**arguments)
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise DeblurExportError(
            f"{source}: the shapes of its tensors do not fit {spec.title}"
        ) from error
    return arguments


def _variant(spec: ModelSpec, variant: str) -> Mapping[str, Any]:
    if variant not in spec.variants:
        known = ", ".join(spec.variants)
        raise DeblurExportError(f"{spec.name} has no variant '{variant}'; it has: {known}")
    return spec.variants[variant]


def _pooling(
    spec: ModelSpec, arguments: Mapping[str, Any], train_size: int, training: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The arguments with local pooling for training crops of this size. An encoder that was frozen
    in that training keeps its own."""
    if not spec.local:
        having = ", ".join(name for name in models.NAMES if models.get(name).local)
        raise DeblurExportError(
            f"{spec.name} has no global pooling that TLC could replace; --local is for {having}"
        )
    frozen = ("encoder_train_size",) if training.get("frozen_encoder") else ()
    return {**arguments, **{name: train_size for name in spec.local if name not in frozen}}


def train_size(path: Path) -> int:
    """Side in pixels of the crops that a checkpoint was trained on.

    `deblur-export train` records it in its .safetensors files. For other files, and for sizes that
    local pooling does not support, it is assumed to be 256, as in all papers.
    """
    size = _training(path).get("crop")
    return next((known for known in LOCAL_SIZES if known == size), TRAIN_SIZE)


def _training(path: Path) -> Mapping[str, Any]:
    """The metadata that `deblur-export train` wrote into a checkpoint; empty for other files."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("training", "{}")
    try:
        training = json.loads(text)
    except ValueError:
        return {}
    return training if isinstance(training, dict) else {}


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, shapes, dtypes and values of a state dict as hexadecimal digits.

    It does not depend on the format of the checkpoint.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by their key.

    Wrappers of training code, {"params_ema" | "params" | "state_dict" | ...: tensors}, and
    "module." prefixes are removed. Only tensors and plain containers are unpickled.

    Returns:
        Floating-point tensors as float32, others with their own dtype.

    Raises:
        DeblurExportError: the file is missing, empty, truncated or of another kind, its pickle
            contains code, or values are not finite.
    """
    if path.suffix not in SUFFIXES:
        raise DeblurExportError(
            f"{path}: weights must be one of {', '.join(SUFFIXES)}, demo or random:SEED"
        )
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise DeblurExportError(f"{path}: {what}")
    if path.stat().st_size == 0:
        raise DeblurExportError(f"{path}: the file is empty")
    content = _read(path)
    state = _unwrap(content)
    if not state:
        raise DeblurExportError(f"{path}: no tensors inside; expected a state dict")
    broken = [key for key, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise DeblurExportError(
            f"{path}: {len(broken)} tensors contain NaN or infinity ({_some(broken)}); the "
            "training diverged or the file is damaged"
        )
    return {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }


def _read(path: Path) -> object:
    damaged = f"{path}: truncated, corrupt or not a checkpoint; copy or download it again"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # about the pickle protocol; real problems are raised
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise DeblurExportError(f"{damaged} ({error})") from error
    except Exception as error:  # torch raises many types of errors for damaged files
        refused = isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path)
        if refused or FOREIGN_OBJECT.search(str(error)):
            raise DeblurExportError(
                f"{path}: contains Python objects other than tensors, which could run code; "
                "refused. Save only the state dict: torch.save(model.state_dict(), FILE)"
            ) from error
        raise DeblurExportError(damaged) from error


def _unwrap(content: object) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        wrapper = next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping):
        return {}
    return {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def identify(state: Mapping[str, Tensor], source: str) -> ModelSpec:
    """Find the network that a state dict belongs to by its keys.

    Args:
        state: the state dict.
        source: name of the checkpoint, for messages.

    Raises:
        DeblurExportError: the keys match no network, or several.
    """
    found = [spec for spec in map(models.get, models.NAMES) if spec.matches(state)]
    if len(found) != 1:
        what = " and ".join(spec.name for spec in found) or "none of the known models"
        raise DeblurExportError(
            f"{source}: its keys match {what} ({', '.join(models.NAMES)}); select one with --model"
        )
    return found[0]


def _check_fit(net: nn.Module, state: Mapping[str, Tensor], title: str, source: str) -> None:
    expected = net.state_dict()
    problems = []
    for label, keys in (
        ("missing", expected.keys() - state.keys()),
        ("unexpected", state.keys() - expected.keys()),
    ):
        if keys:
            problems.append(f"{len(keys)} {label} ({_some(sorted(keys))})")
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    if reshaped:
        problems.append(f"{len(reshaped)} of another shape ({_some(reshaped)})")
    if problems:
        raise DeblurExportError(
            f"{source} does not fit {title}: {'; '.join(problems)}{_looks_like(state)}"
        )


def _some(items: list[str]) -> str:
    more = f", ... {len(items) - SHOWN_KEYS} more" if len(items) > SHOWN_KEYS else ""
    return ", ".join(items[:SHOWN_KEYS]) + more


def _looks_like(state: Mapping[str, Tensor]) -> str:
    for spec in map(models.get, models.NAMES):
        if spec.matches(state):
            variant = spec.variant_of(spec.hyperparameters(state))
            return f". It looks like --model {spec.name}, variant {variant}"
    return ". It looks like none of the known models"
