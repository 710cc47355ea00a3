"""Evaluate the demo weights: every network on the split test of a dataset.

    deblur-export pairs --fetch PHOTOS && deblur-export pairs DATASET --photos PHOTOS
    python bench/quality.py --dataset DATASET [--json FILE] [--jobs N]

Networks run in PyTorch in float32 on whole images of 256x256 pixels. PSNR, SSIM and their forms
weighted by the ground-truth mask (PSNR_w, SSIM_w, as in Li et al., ReLoBlur) are means over the
blurred pairs. The gain of PSNR_w is also given for ranges of the longest motion in a pair. The last
column but one is the PSNR of sharp photos, without noise or JPEG, after the network. `-local` is
the network with local pooling (`--local`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ops import machine
from rich.console import Console
from rich.progress import track

from deblur_export import models
from deblur_export.child import end_with
from deblur_export.export.parity import metrics
from deblur_export.models.checkpoint import DEMO_FOLDER, LoadedModel, load_model
from deblur_export.models.complexity import count_parameters
from deblur_export.models.training.data.dataset import Batch, Dataset, extent
from deblur_export.models.training.losses import coarse_mask
from deblur_export.models.training.scores import MaskRecorder

COLUMNS = ("PSNR", "SSIM", "PSNR_w", "SSIM_w")
GAIN = COLUMNS.index("PSNR_w")
EXTENTS = ((0.0, 8.0), (8.0, 16.0), (16.0, math.inf))  # pixels, the second included
SHARP_PHOTOS = 20
HEAD = (
    "| network | parameters | PSNR | SSIM | PSNR_w | SSIM_w | PSNR_w gained | up to 8 px | "
    "8 to 16 px | beyond | sharp photo | mask IoU |",
    "|---" * 12 + "|",
)
Scores = NDArray[np.float64]  # [pairs, 4]
Network = Callable[[torch.Tensor], torch.Tensor]


class Evaluation(NamedTuple):
    """The figures of a network: means of `COLUMNS`, the result of `gains`, the PSNR of sharp
    photos, and the mask IoU."""

    title: str
    sha256: str
    parameters: int
    means: dict[str, float]
    gained: list[float]
    sharp: float
    mask_iou: float | None

    def row(self) -> str:
        rest = [*(f"{gain:+.2f} dB" for gain in self.gained), f"{self.sharp:.1f} dB"]
        iou = "" if self.mask_iou is None else f"{self.mask_iou:.2f}"
        return row(self.title, f"{self.parameters:,}", self.means, [*rest, iou])

    def figures(self) -> dict[str, object]:
        figures = {**self.means, **self._asdict()}
        del figures["title"], figures["means"]
        return figures


def demo_networks() -> list[tuple[str, str, bool]]:
    """Name, variant and local pooling of all demo weights, also local if a network supports it."""
    names = sorted(path.stem.split("_") for path in DEMO_FOLDER.glob("*.safetensors"))
    return [
        (name, variant, local)
        for name, variant in names
        for local in (False, True)[: 1 + bool(models.get(name).local)]
    ]


@torch.no_grad()
def evaluate(
    network: tuple[str, str, bool], folder: Path, before: Scores, extents: NDArray[np.float64]
) -> Evaluation:
    """Evaluate a network; `before` and `extents` are scores and motion of the blurred pairs."""
    torch.set_num_threads(1)
    name, variant, local = network
    model = load_model(name, variant, "demo", local)
    everything, blurred = pairs_of(folder)
    result = scores(model.net, blurred)
    return Evaluation(
        model.title,
        model.sha256,
        count_parameters(model.net),
        means(result),
        gains(result, before, extents),
        sharp_kept(model.net, everything),
        mask_iou(model, everything),
    )


def pairs_of(folder: Path) -> tuple[list[Batch], list[Batch]]:
    """All test pairs, and those of them with blur."""
    dataset = Dataset(folder, "test")
    everything = list(dataset.whole(len(dataset), 1))
    return everything, [pair for pair in everything if float(pair.mask.max()) > 0]


def scores(net: Network, pairs: list[Batch]) -> Scores:
    """The values of `COLUMNS` for each pair, [pairs, 4]."""
    rows = []
    for pair in pairs:
        restored = array(net(pair.blurred))
        sharp, mask = array(pair.sharp), pair.mask[0, 0].numpy()
        rows.append(
            (
                metrics.psnr(sharp, restored),
                metrics.ssim(sharp, restored),
                metrics.psnr(sharp, restored, weight=mask),
                metrics.ssim(sharp, restored, weight=mask),
            )
        )
    return np.array(rows)


def means(s: Scores) -> dict[str, float]:
    return dict(zip(COLUMNS, s.mean(axis=0).tolist(), strict=True))


def gains(after: Scores, before: Scores, extents: NDArray[np.float64]) -> list[float]:
    """Mean gain of PSNR_w in dB, over all pairs and over those of each range of `EXTENTS`."""
    gained = after[:, GAIN] - before[:, GAIN]
    ranges = [(extents > low) & (extents <= high) for low, high in EXTENTS]
    return [float(gained.mean()), *(float(gained[chosen].mean()) for chosen in ranges)]


def array(image: torch.Tensor) -> NDArray[np.float32]:
    """Convert an image [1, 3, H, W] to an array [3, H, W], clipped to 0..1."""
    return image[0].clamp(0, 1).numpy()


def sharp_kept(net: Network, pairs: list[Batch]) -> float:
    """Mean PSNR of clean sharp photos after the network."""
    every = max(len(pairs) // SHARP_PHOTOS, 1)
    images = [pair.sharp for pair in pairs[::every]]
    return float(np.mean([metrics.psnr(array(x), array(net(x))) for x in images]))


def mask_iou(model: LoadedModel, pairs: list[Batch]) -> float | None:
    """Intersection over union of predicted and ground-truth mask at an eighth of the size; None
    for a network without mask."""
    seen = MaskRecorder(model.net)
    union = intersection = 0.0
    for pair in pairs:
        model.net(pair.blurred)
        if seen.mask is None:
            return None
        found, true = seen.mask > 0, coarse_mask(pair.mask, seen.mask.shape[-2:]) > 0
        intersection += float((found & true).sum())
        union += float((found | true).sum())
    seen.remove()
    return intersection / union


def row(title: str, parameters: str, s: dict[str, float], rest: list[str]) -> str:
    cells = (f"{s['PSNR']:.2f}", f"{s['SSIM']:.4f}", f"{s['PSNR_w']:.2f}", f"{s['SSIM_w']:.4f}")
    return f"| {' | '.join([title, parameters, *cells, *rest])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time, one thread each")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    console = Console(width=200)
    everything, blurred = pairs_of(options.dataset)
    for key, value in machine().items():
        console.print(f"{key}: {value}")
    console.print(f"{len(blurred)} blurred pairs of {len(everything)}\n")
    extents = np.array([extent(pair.motion[0].permute(1, 2, 0).numpy()) for pair in blurred])
    before = scores(lambda x: x, blurred)
    lines = [*HEAD, row("blurred input", "", means(before), [" "] * 6)]
    report: dict[str, object] = {"machine": machine(), "pairs": len(blurred)}
    report["input"] = means(before)
    networks = demo_networks()
    task = partial(evaluate, folder=options.dataset, before=before, extents=extents)
    with ProcessPoolExecutor(
        options.jobs, get_context("spawn"), end_with, (os.getpid(),)
    ) as workers:
        results = workers.map(task, networks)
        for evaluation in track(results, "networks", total=len(networks), transient=True):
            lines.append(evaluation.row())
            report[evaluation.title] = evaluation.figures()
    print("\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
