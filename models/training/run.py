"""Set up and run a training from the arguments of `deblur-export train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint import fingerprint, load_model
from deblur_export.models.spec import ModelSpec
from deblur_export.models.training import phases
from deblur_export.models.training.data import dataset
from deblur_export.models.training.data.dataset import Dataset
from deblur_export.models.training.display import Display
from deblur_export.models.training.losses import SSIM_SIZE
from deblur_export.models.training.nafnet_weights import copy_nafnet_weights
from deblur_export.models.training.objective import Images, Weights, default_images
from deblur_export.models.training.schedule import Schedule
from deblur_export.models.training.state import Folder
from deblur_export.models.training.trainer import Options, Trainer
from deblur_export.outputs import check_outputs

# The arguments, besides the network, that must not change when a run is continued.
RECORDED = (
    *("steps", "minutes", "batch", "crop", "focus", "longest", "lr", "clip"),
    *("frequency_weight", "mask_weight", "ema", "seed"),
)


@dataclass(frozen=True)
class RunArguments:
    """The options of `deblur-export train` under their names; its help describes them."""

    model: str
    dataset: Path
    output: Path
    variant: str = "tiny"
    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    crop: int = 128
    focus: float = 0.75
    longest: float | None = None
    lr: float = 1e-3
    clip: float = 0.01
    images: Images | None = None
    frequency_weight: float = 0.1
    mask_weight: float = 0.01
    ema: float = 0.999
    seed: int = 0
    init_from: Path | None = None
    from_nafnet: str | None = None
    init_ema: bool | None = None
    frozen_encoder: bool = False
    bf16: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"
    threads: int | None = None
    val_every: int = 500
    val_images: int = 32
    save_every: float = 180

    def spec(self) -> ModelSpec:
        """Check the arguments and return the specification of the network.

        Raises:
            DeblurExportError: the network does not exist, or the arguments do not fit it.
        """
        spec = models.get(self.model)
        spec.arguments_of(self.variant)
        if self.steps is None and self.minutes is None:
            raise DeblurExportError("give the length of the run: --steps, --minutes or both")
        if self.init_from is not None and self.from_nafnet is not None:
            raise DeblurExportError("--init-from and --from-nafnet exclude each other")
        if self.init_ema is not None and self.init_from is None and self.from_nafnet is None:
            raise DeblurExportError("--init-ema is for the file of --init-from or --from-nafnet")
        if self.crop % spec.images.multiple:
            raise DeblurExportError(
                f"--crop {self.crop}: {spec.name} needs a multiple of {spec.images.multiple}"
            )
        if spec.name == "algnet" and self.crop < 32:
            raise DeblurExportError(
                "algnet is supervised at an eighth of the size: --crop must be at least 32"
            )
        if self.image_terms == "l1-ssim" and self.smallest < SSIM_SIZE:
            raise DeblurExportError(
                f"--images l1-ssim compares windows of {SSIM_SIZE} pixels, and {spec.name} is "
                f"supervised at a size of {self.smallest}: choose a larger --crop"
            )
        if spec.name == "aibnet" and self.batch < 2:
            raise DeblurExportError("aibnet normalizes over the batch: --batch must be at least 2")
        return spec

    @property
    def image_terms(self) -> Images:
        """The image terms: those that were asked for, or the default of the network."""
        return self.images or default_images(self.model)

    @property
    def smallest(self) -> int:
        """The side in pixels of the smallest image that the loss compares."""
        return self.crop // 8 if self.model == "algnet" else self.crop


def make_trainer(
    arguments: RunArguments, say: Callable[[str], None] = lambda line: None
) -> Trainer:
    """Make a trainer with the initial weights, or with the state of an interrupted run; `say` is
    told which weights of a checkpoint were taken.

    Raises:
        DeblurExportError: the arguments do not fit the network, the device cannot be used, dataset
            or weights cannot be read, or the output folder holds another run.
    """
    spec = arguments.spec()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    device = _device(arguments.device)
    train_dataset = Dataset(arguments.dataset, "train", arguments.longest)
    val_dataset = Dataset(arguments.dataset, "val")
    net, origin = _first_network(spec, arguments, device, say)
    bf16 = arguments.bf16 == "on"
    if arguments.bf16 == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    recorded: dict[str, Any] = {
        "model": f"{spec.name}:{arguments.variant}",
        "dataset": dataset.fingerprint(arguments.dataset),
        "first weights": origin,
        "bf16": bf16,
        "frozen_encoder": arguments.frozen_encoder,
        "from_nafnet": arguments.from_nafnet,
        **{name: getattr(arguments, name) for name in RECORDED},
        "images": arguments.image_terms,
    }
    options = Options(
        schedule=Schedule(arguments.steps, arguments.minutes, phases.count(net), arguments.lr),
        arguments=recorded,
        batch=arguments.batch,
        crop=arguments.crop,
        focus=arguments.focus,
        clip=arguments.clip,
        average=arguments.ema,
        seed=arguments.seed,
        bf16=bf16,
        encoder=not arguments.frozen_encoder,
        fresh=arguments.init_from is None,
        weights=Weights(
            images=arguments.image_terms,
            frequency=arguments.frequency_weight,
            mask=arguments.mask_weight,
        ),
        validate=arguments.val_every,
        images=arguments.val_images,
        save=arguments.save_every,
    )
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeblurExportError(f"{arguments.output}: cannot be made: {error.strerror}") from error
    folder = Folder(arguments.output)
    nafnet = None if arguments.from_nafnet is None else Path(arguments.from_nafnet)
    check_outputs(folder.files(), [arguments.dataset, arguments.init_from, nafnet])
    return Trainer(net, train_dataset, val_dataset, folder, options)


def train(trainer: Trainer, console: Console) -> bool:
    """Train to the end, or until `Trainer.stop` is called; returns whether the end was reached."""
    net = trainer.net
    with Display(console, trainer.options.arguments["model"]) as display:
        trained = sum(parameter.numel() for parameter in net.parameters())
        start = f"from step {trainer.step}" if trainer.step else "from the start"
        pairs = len(trainer.train.drawn)
        display.say(f"{trained} parameters, {pairs} pairs, {trainer.device}, {start}")
        if note := phases.note(net):
            display.say(f"note: {note}")
        return trainer.run(display)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeblurExportError(f"--device {name}: not usable here") from error
    return device


def _first_network(
    spec: ModelSpec,
    arguments: RunArguments,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[nn.Module, str]:
    """The network with its initial weights, and their fingerprint."""

    def loaded(name: str, variant: str | None, weights: str) -> nn.Module:
        model = load_model(name, variant, weights, ema=arguments.init_ema)
        for note in model.notes:
            say(f"note: {note}")
        return model.net

    if arguments.init_from is not None:
        net = loaded(spec.name, arguments.variant, str(arguments.init_from))
    else:
        torch.manual_seed(arguments.seed)
        net = spec.build(**spec.variants[arguments.variant])
    phases.prepare(net, fresh=arguments.init_from is None)
    if arguments.from_nafnet is not None:
        copy_nafnet_weights(net, loaded("nafnet", None, arguments.from_nafnet))
    return net.to(device), fingerprint(net.state_dict())
