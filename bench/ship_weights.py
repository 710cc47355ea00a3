"""Make demo weights from finished training runs: models/weights/NAME_VARIANT.safetensors and .md.

    python bench/ship_weights.py --dataset DATASET [--quality bench/quality.json] RUN[,RUN...] ...

RUN,RUN are runs of the same network, each continued from the previous one with --init-from; the
weights are those of the last one. They are stored as float16, which halves the files. Run it again
with --quality after bench/quality.py to add the figures of the held-out test pairs to the cards.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from deblur_export import models
from deblur_export.atomic import atomic_path
from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint import DEMO_FOLDER, load_model
from deblur_export.models.complexity import count_parameters
from deblur_export.models.training import phases

LARGEST = 65504.0  # float16
CARD = """# {title}, demo weights

{parameters:,} parameters, stored as float16, in `{file}`.

**What they are for.** A first impression, tests of precision and quantization, and the example in
the README. They are small, trained for a short time on synthetic blur, and no substitute for the
authors' weights: do not judge the network by them.

**Data.** {train} pairs of 256x256 pixels made by `deblur-export pairs` (generator version
{generator}, seed {seed}) from {photos} photos: object-shaped local motion blur, camera shake, and
sharp images, with noise and JPEG. Licences of the photos: {licences}. They and their authors
are listed in `CREDITS.md`; validation and test use other photos.

**Training**, on {machine}:

{training}

{chain}Shipped is the exponential mean at step {step} of the last run, {which}.{local}

**Loss.** {loss}

**Figures.** Validation: {validation}.
{test}
**Limits.** Real blur is not made of ellipses and polygons; rolling shutter, defocus, low light and
saturated lights were never seen. {longest}{prior}

**Licence.** CC-BY-SA-4.0: the file `LICENSE` beside this one, with the credits in `CREDITS.md`.
"""
RELATIVE = """The squared error relative to that of the input (`--images relative`), which is of no
paper{supervised}."""
OTHER = "`--images {images}` of docs/training.md{supervised}."
SUPERVISED = {
    "algnet": ", summed over the four sizes of the output",
    "aibnet": ", one sub-decoder after the other",
    "m2aenet": ", with the terms of mask and motion of docs/training.md",
    "saphn": ", summed over the three stages",
}
LOCAL = "\n`--local` pools over windows of 1.5 times the crop."
PRIOR = "\nIts kernel prior was not trained: it keeps its first, random values."
FROM_NAFNET = """The first run began with the weights of `nafnet:tiny`
(`models/training/nafnet_weights.py`; where a stage has fewer blocks, with its last ones): compare
the figures with theirs. Only what the network adds to NAFNet was newly initialised. """
CHAIN = "Each run but the first began with the averaged weights that the one before ended with. "


def half(tensor: torch.Tensor) -> torch.Tensor:
    """Convert floating-point tensors to float16; others are not changed."""
    if not tensor.is_floating_point():
        return tensor.contiguous()
    if tensor.abs().max() > LARGEST:
        raise DeblurExportError("a weight does not fit into float16")
    return tensor.half().contiguous()


def ship(runs: list[Path], dataset: Path, quality: dict[str, Any], options: Any) -> None:
    """Write the weights and the model card of a network."""
    source = runs[-1] / f"{options.which}.safetensors"
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["training"])
    about["crop"] = _state(runs[-1])["arguments"]["crop"]
    model, variant = about["network"].split(":")
    target = DEMO_FOLDER / f"{model}_{variant}.safetensors"
    tensors = {name: half(tensor) for name, tensor in load_file(source).items()}
    DEMO_FOLDER.mkdir(exist_ok=True)
    with atomic_path(target) as temporary:
        temporary.write_bytes(save(tensors, {"training": json.dumps(about)}))
    net = load_model(model, variant, "demo").net
    card = CARD.format(
        title=f"{model}:{variant}",
        parameters=count_parameters(net),
        file=target.name,
        training="\n".join(map(_training, runs)),
        machine=options.machine,
        chain=(FROM_NAFNET if _state(runs[0])["arguments"].get("from_nafnet") else "")
        + (CHAIN if len(runs) > 1 else ""),
        step=f"{about['step']:,}",
        which="its end" if options.which == "last" else "where validation PSNR was highest",
        validation=_validation(about),
        loss=_loss(model, _state(runs[-1])["arguments"]["images"]),
        longest=_longest(runs[-1]),
        local=LOCAL if models.get(model).local else "",
        prior=PRIOR if phases.note(net) else "",
        test=_test(quality.get(f"{model}:{variant}"), quality.get("input")),
        **_data(dataset),
    )
    target.with_suffix(".md").write_text(card, encoding="utf-8")
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def _state(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "state.pt", weights_only=True)
    return state


def _training(run: Path) -> str:
    """One line that describes a run."""
    state = _state(run)
    arguments, numbers = state["arguments"], state["numbers"]
    network = arguments["model"].replace(":", " --variant ")
    took = f"{numbers['step']:,} steps in {numbers['seconds'] / 60:.0f} minutes"
    return f"- `deblur-export train --model {network} {_options(arguments)}`: {took}"


def _loss(model: str, images: str) -> str:
    """A sentence about the loss."""
    text = RELATIVE if images == "relative" else OTHER
    return text.format(images=images, supervised=SUPERVISED.get(model, ""))


def _longest(run: Path) -> str:
    """A sentence about the longest motion."""
    longest = _state(run)["arguments"]["longest"]
    if longest is None:
        return "Blur of more than a few pixels is only softened."
    return f"They were trained on motion of up to {longest:g} pixels; longer blur hardly changes."


def _options(arguments: dict[str, Any]) -> str:
    names = ["batch", "crop", "focus", "longest", "lr", "clip", "images", "mask_weight", "ema"]
    names += ["steps", "minutes", "seed", "from_nafnet"]
    given = {name: arguments[name] for name in names if arguments.get(name) is not None}
    if not arguments["model"].startswith("m2aenet"):
        given.pop("mask_weight", None)
    if arguments["bf16"]:
        given["bf16"] = "on"
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())


def _data(dataset: Path) -> dict[str, Any]:
    about = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    photos = [photo for photo in about["photos"] if photo["split"] == "train"]
    licences = Counter(photo["licence"] for photo in photos)
    listed = ", ".join(f"{name} ({count})" for name, count in licences.most_common())
    train = f"{about['counts']['train']:,}"
    return {
        "train": train,
        "generator": about["generator"],
        "seed": about["seed"],
        "photos": len(photos),
        "licences": listed,
    }


def _validation(about: dict[str, Any]) -> str:
    names = {"psnr": "PSNR", "psnr_w": "PSNR_w"}
    shown = (
        f"{label} {about[name]:.2f} dB (input {about[f'blurred_{name}']:.2f})"
        for name, label in names.items()
    )
    return ", ".join(shown)


def _test(figures: dict[str, Any] | None, before: dict[str, Any] | None) -> str:
    if figures is None or before is None:
        return ""
    iou = figures["mask_iou"]
    return (
        f"Held-out test pairs (`bench/quality.py`): PSNR {figures['PSNR']:.2f} dB (input "
        f"{before['PSNR']:.2f}), PSNR_w {figures['PSNR_w']:.2f} dB (input {before['PSNR_w']:.2f}), "
        f"sharp photos kept at {figures['sharp']:.1f} dB"
        + (f", mask IoU {iou:.2f}.\n" if iou is not None else ".\n")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders, those of one network with commas")
    parser.add_argument("--which", choices=["best", "last"], default="last")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--quality", type=Path)
    parser.add_argument("--machine", default="one CPU core", help="what trained them, in words")
    options = parser.parse_args()
    quality = json.loads(options.quality.read_text(encoding="utf-8")) if options.quality else {}
    for run in options.runs:
        ship([Path(part) for part in run.split(",")], options.dataset, quality, options)


if __name__ == "__main__":
    main()
