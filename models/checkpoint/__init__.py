"""Load networks with weights: from checkpoints, the demo weights of this package, or at random."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.manifest_blocks import Fact, Model
from deblur_export.models.blocks.naf import LOCAL_SIZES
from deblur_export.models.checkpoint.files import Checkpoint, read_checkpoint
from deblur_export.models.checkpoint.fit import fit
from deblur_export.models.checkpoint.recognise import looks_like, recognise
from deblur_export.models.image_spec import ImageSpec
from deblur_export.models.random_weights import randomize
from deblur_export.models.spec import TRAIN_SIZE, ModelSpec
from deblur_export.shown import shown

RANDOM = re.compile(r"random:0*(\d+)")
DEMO = "demo"
DEMO_FOLDER = Path(models.__file__).parent / "weights"


@dataclass(frozen=True)
class Foreign:
    """How a network was found that is not built in, as the manifest's `Model` records it."""

    origin: Literal["callable", "plugin", "spandrel"]
    where: str
    source: str | None
    source_sha256: str | None
    facts: Mapping[str, Fact]


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
        key: under which key of the checkpoint the weights stood, "params" or "state_dict.net_g";
            "" for the top of the file.
        ema: whether they are the averaged weights of a checkpoint that has both kinds, or of which
            one kind was asked for; otherwise None.
        notes: what was chosen and what was left out, in one line each.
        foreign: of a network that is not built in, how it was found.
    """

    spec: ModelSpec
    variant: str
    arguments: Mapping[str, Any]
    net: nn.Module
    weights: str
    sha256: str
    key: str = ""
    ema: bool | None = None
    notes: tuple[str, ...] = ()
    foreign: Foreign | None = None

    @property
    def identity(self) -> Model:
        """The network as a manifest names it."""
        foreign = self.foreign
        return Model(
            origin="built-in" if foreign is None else foreign.origin,
            name=self.spec.name,
            variant=self.variant,
            where=None if foreign is None else foreign.where,
            arguments=dict(self.arguments),
            source=self.spec.source if foreign is None else foreign.source,
            source_sha256=None if foreign is None else foreign.source_sha256,
        )

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What is known of the network and the images that it accepts, and how."""
        if self.foreign is not None:
            return self.foreign.facts
        known = dict(self.images.known())
        if self.spec.blur_mask is not None:
            known["blur_mask"] = self.spec.blur_mask
        return {name: Fact(value, "given") for name, value in known.items()}

    @property
    def title(self) -> str:
        return self.identity.title

    @property
    def images(self) -> ImageSpec:
        """Which images the network accepts and gives."""
        spec = self.spec
        return spec.images if spec.images_of is None else spec.images_of(self.arguments)

    @property
    def origin(self) -> str:
        """Where the weights are from, in words: "net.pth, params"."""
        return f"{self.weights}, {shown(self.key)}" if self.key else self.weights


def default_weights(name: str | None, variant: str | None) -> str:
    """The weights used if none are given: demo weights if the variant has any, or else random."""
    return DEMO if name and variant and demo_path(name, variant).is_file() else "random:0"


def demo_path(name: str, variant: str) -> Path:
    """The path of a variant's demo weights in the package, whether they exist or not."""
    return DEMO_FOLDER / f"{name}_{variant}.safetensors"


def load_model(
    name: str | None,
    variant: str | None,
    weights: str,
    local: bool = False,
    ema: bool | None = None,
) -> LoadedModel:
    """Build a network and load its weights.

    Args:
        name: a name of `models.NAMES`, or None to recognise a checkpoint by its keys.
        variant: a variant of the network. None selects the paper's variant for random weights, the
            first variant with demo weights for these, and for a checkpoint the variant that its
            shapes imply.
        weights: "demo", "random:SEED" or the path of a checkpoint, recognised by its content.
        local: pool over windows of 1.5 times the training crop (see `train_size`) instead of the
            whole image (TLC).
        ema: of a checkpoint, True takes the weights averaged over the training, False the others.
            None takes the others where both are there, as the official evaluation of NAFNet does.

    Raises:
        DeblurExportError: the name is unknown, the file cannot be read or does not fit, or it has
            no weights of the kind that `ema` asks for.
    """
    seed = RANDOM.fullmatch(weights)
    if seed:
        if ema is not None:
            raise DeblurExportError(f"--weights {weights}: --ema and --no-ema are for checkpoints")
        return _random_model(name, variant, weights, seed[1], local)
    path = Path(weights)
    if weights == DEMO:
        name, variant = _demo_variant(name, variant)
        path = demo_path(name, variant)
    elif not path.exists():
        raise DeblurExportError(
            f"{weights}: no such file; weights are a checkpoint, demo or random:SEED"
        )
    checkpoint = read_checkpoint(path)
    found = recognise(checkpoint, name, variant, ema)
    fitted = fit(checkpoint, found.wanted, ema, lambda: looks_like(checkpoint))
    arguments = found.arguments
    if local:
        training = _training(checkpoint)
        arguments = _pooling(found.spec, arguments, train_size(training), training)
    try:
        net = found.spec.build(**arguments).eval()
    except ValueError as error:  # only local pooling is refused: what the shapes imply was built
        raise DeblurExportError(f"{checkpoint.source}: no --local for it: {error}") from error
    net.load_state_dict(fitted.state)
    return LoadedModel(
        found.spec,
        found.spec.variant_of(arguments),
        arguments,
        net,
        weights,
        fingerprint(net.state_dict()),
        fitted.key,
        fitted.ema,
        fitted.notes,
    )


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
    arguments = spec.arguments_of(variant or spec.default_variant)
    if local:
        arguments = _pooling(spec, arguments, TRAIN_SIZE, {})
    net = spec.build(**arguments).eval()
    randomize(net, spec, int(digits))
    return LoadedModel(
        spec, spec.variant_of(arguments), arguments, net, weights, fingerprint(net.state_dict())
    )


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


def train_size(training: Mapping[str, Any]) -> int:
    """Side in pixels of the crops that a checkpoint was trained on.

    `deblur-export train` records it in its .safetensors files. For other files, and for sizes that
    local pooling does not support, it is assumed to be 256, as in all papers.
    """
    size = training.get("crop")
    return next((known for known in LOCAL_SIZES if known == size), TRAIN_SIZE)


def _training(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The metadata that `deblur-export train` wrote into a checkpoint; empty for other files."""
    try:
        training = json.loads(checkpoint.metadata.get("training", "{}"))
    except (ValueError, RecursionError):
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
